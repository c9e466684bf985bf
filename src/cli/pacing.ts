/** The flags that say how fast and in how many steps rows are written, the same for `plan` and `apply`. */
import type { Command } from "commander";
import { UsageError } from "../base/errors.js";
import { type Pacing, parseWaves } from "../operations/writing/run-cut.js";

/** What commander gives for {@link pacingOptions}. */
export interface PacingFlags {
  readonly waves?: string;
  readonly maxRate?: string;
  readonly atomic?: boolean;
}

/** Adds `--waves`, `--max-rate` and `--atomic`. */
export function pacingOptions(command: Command): Command {
  return command
    .option(
      "--waves <list>",
      "write in waves with checks between them: 1%,10%,100% or 500,5000,100%; tenant:1,10,100% counts values of a column",
    )
    .option("--max-rate <rows>", "at most so many rows a second")
    .option("--atomic", "all rows in one transaction, however many they are");
}

/** @throws UsageError ERR_USAGE for waves or a rate that are none. */
export function pacingOf(flags: PacingFlags): Pacing {
  return {
    ...(flags.waves === undefined ? {} : { waves: parseWaves(flags.waves) }),
    ...(flags.maxRate === undefined ? {} : { maxRowsPerSecond: rateOf(flags.maxRate) }),
    ...(flags.atomic === true ? { atomic: true } : {}),
  };
}

function rateOf(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--max-rate ${JSON.stringify(text)} is no rate`,
    why: "a number of rows a second, at least 1",
  });
}
