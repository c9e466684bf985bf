/** `--wait`: how long, and how time passes. */
import { setTimeout as after } from "node:timers/promises";
import { parseDuration } from "../base/clock.js";
import { UsageError } from "../base/errors.js";
import type { Pause } from "../operations/wait.js";

/** Lets time pass on the process's own timer; Ctrl-C ends the command while it does. */
export const pause: Pause = (ms) => after(ms);

/** Seconds of `--wait`; 0 where it was not given. */
export function waitOf(text: string | undefined): number {
  if (text === undefined) return 0;
  const seconds = parseDuration(text);
  if (seconds !== undefined) return seconds;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--wait ${text} is no duration`,
    why: "write 30s, 10m or 4h",
  });
}
