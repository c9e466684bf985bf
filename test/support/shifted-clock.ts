/** A program that believes it is another time. */
import { pathToFileURL } from "node:url";
import type { TestProject } from "./project.js";

const SHIFTED = `
  const shift = Number(process.env.SHIFT_SECONDS) * 1000;
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...args) { if (args.length === 0) super(Real.now() + shift); else super(...args); }
    static now() { return Real.now() + shift; }
  };
`;

/** The environment under which a command of the project runs so many seconds later, or earlier. */
export function shifted(project: TestProject, seconds: number): { readonly env: Record<string, string> } {
  const file = project.write("shift.mjs", SHIFTED);
  const url = pathToFileURL(project.path(file)).href;
  return { env: { NODE_OPTIONS: `--import=${url}`, SHIFT_SECONDS: String(seconds) } };
}
