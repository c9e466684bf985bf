/** `explain CODE`: what an error means and what to do about it. */
import { ERROR_CODES, type ErrorCode, UsageError } from "../../base/errors.js";
import { nearest } from "../../base/suggest.js";
import { EXPLANATIONS, renderExplanation } from "../../render/explain.js";
import type { Context, Outcome, Register } from "../command.js";
import { exitCodeOf, exitName } from "../exit-codes.js";
import { describeCommand } from "../help.js";

export const registerExplain: Register = (program, run) => {
  const command = program
    .command("explain")
    .argument("<code>", "an error's code, e.g. ERR_DRIFT_ROWS")
    .action((code: string) => run("explain", (cx) => explain(cx, code)));
  describeCommand(command, {
    group: "Understand",
    summary: "what an error means and what to do about it",
    examples: [{ line: "holdpoint explain ERR_DRIFT_ROWS", what: "one paragraph each" }],
    exits: [],
  });
};

async function explain(cx: Context, word: string): Promise<Outcome> {
  const code = codeNamed(word.toUpperCase());
  const explanation = EXPLANATIONS[code];
  const exit = { code: exitCodeOf(code), name: exitName(exitCodeOf(code)) };
  return Promise.resolve({
    result: { code, exit, means: explanation.means, todo: explanation.todo },
    text: renderExplanation(code, exit, cx.streams.outPalette, cx.streams.width),
  });
}

function codeNamed(word: string): ErrorCode {
  const found = ERROR_CODES.find((c) => c === word || c === `ERR_${word}`);
  if (found !== undefined) return found;
  const guess = nearest(word, ERROR_CODES);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `there is no error code ${word}`,
    ...(guess === undefined ? {} : { why: `did you mean ${guess}?` }),
  });
}
