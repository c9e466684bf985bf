/** Long output at a real terminal: through the reader's pager, and quietly without one. */
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { chmodSync } from "node:fs";
import { runHere } from "../support/here.js";
import { makeProject, type TestProject } from "../support/project.js";
import { converse } from "../support/terminal.js";

let project: TestProject;
let plan = "";
beforeAll(() => {
  project = makeProject();
  plan = project.plan("UPDATE orders SET note = 'x' WHERE id <= 80");
  project.write("pager.sh", "#!/bin/sh\nexec sed 's/^/paged: /'\n");
  project.write("leaver.sh", "#!/bin/sh\nhead -n 1\n");
  for (const script of ["pager.sh", "leaver.sh"]) chmodSync(project.path(script), 0o755);
});
afterAll(() => project.close());

const rowsAt = async (env: Readonly<Record<string, string>>): Promise<{ code: number; lines: string[] }> => {
  const { code, screen } = await converse(["show", plan, "--rows"], [], { cwd: project.dir, env });
  return { code, lines: screen.split("\n").filter((l) => l.includes("~")) };
};

test("what is longer than the screen goes through HOLDPOINT_PAGER, before PAGER", async () => {
  const { code, lines } = await rowsAt({ HOLDPOINT_PAGER: "./pager.sh", PAGER: "false" });
  expect(code).toBe(0);
  expect(lines).toHaveLength(80);
  expect(lines.every((l) => l.startsWith("paged: "))).toBe(true);
});

test("a pager that is not there is done without, quietly", async () => {
  const { code, lines } = await rowsAt({ PAGER: "./no-such-pager" });
  expect(code).toBe(0);
  expect(lines).toHaveLength(80);
});

test("a reader who leaves early ends it with 0 and no complaint", async () => {
  const { code, screen } = await converse(["show", plan, "--rows"], [], {
    cwd: project.dir,
    env: { PAGER: "./leaver.sh" },
  });
  expect(code).toBe(0);
  expect(screen).not.toMatch(/ERR_|EPIPE/);
});

test("what fits is printed, and off a terminal, in CI and under --json there is no pager", async () => {
  const env = { HOLDPOINT_PAGER: "./pager.sh" };
  const piped = await runHere(project, ["show", plan, "--rows"], { env });
  expect(piped.stdout).not.toContain("paged:");
  const ci = await converse(["show", plan, "--rows"], [], { cwd: project.dir, env: { ...env, CI: "1" } });
  expect(ci.screen).not.toContain("paged:");
  const short = await converse(["log", "show", plan], [], { cwd: project.dir, env });
  expect(short.screen).not.toContain("paged:");
});
