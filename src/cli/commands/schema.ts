/** `schema NAME`: JSON Schemas of what people write and of what scripts read. */
import { UsageError } from "../../base/errors.js";
import { nearest } from "../../base/suggest.js";
import { configJsonSchema } from "../../config/config.js";
import { policyJsonSchema } from "../../config/policies.js";
import { documentSchema, EVENTS, RESULTS } from "../../render/documents.js";
import type { Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";

/** Files that people write; the other names are those of documents. */
const FILES: Readonly<Record<string, () => Readonly<Record<string, unknown>>>> = {
  policy: policyJsonSchema,
  config: configJsonSchema,
};

const NAMES = [...Object.keys(FILES), EVENTS, "holdpoint", ...Object.keys(RESULTS)];

export const registerSchema: Register = (program, run) => {
  const command = program
    .command("schema")
    .argument("<name>", `one of ${NAMES.join(", ")}`)
    .action((name: string) => run("schema", () => Promise.resolve(schemaNamed(name))));
  describeCommand(command, {
    group: "Understand",
    summary: "JSON Schemas: of policies and configuration, of --json documents",
    examples: [
      {
        line: "holdpoint schema policy > policy.schema.json",
        what: "an editor then completes and checks policies",
      },
      { line: "holdpoint schema env-check", what: "what env check --json prints" },
    ],
    exits: [],
  });
};

function schemaNamed(name: string): Outcome {
  const schema = Object.hasOwn(FILES, name) ? FILES[name]?.() : documentSchema(name);
  if (schema !== undefined) return { result: schema, text: `${JSON.stringify(schema, null, 2)}\n` };
  const guess = nearest(name, NAMES);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `there is no schema called ${name}`,
    why: guess === undefined ? `there are ${NAMES.join(", ")}` : `did you mean ${guess}?`,
    next: [{ actor: "anyone", argv: ["holdpoint", "schema", "--help"] }],
  });
}
