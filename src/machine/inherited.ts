/**
 * How long a variable of this process has been set. The system keeps the variables with which each process was started
 * (Linux: /proc/PID/environ). One that the parent had at its own start is older than the shell that somebody types in: it
 * comes from a profile, a terminal or a service, and nobody may remember it. One that it had not was set since, or for
 * this command. Only ever shown.
 */
import { readFileSync } from "node:fs";

/** Reads the variables with which a process was started; throws where that cannot be read. */
export type ReadStart = (pid: number) => string;

const readProc: ReadStart = (pid) => readFileSync(`/proc/${pid}/environ`, "latin1");

/**
 * `before-parent`: the parent process had this value when it was started. `since`: it had not. Null: nobody can tell.
 * Values are compared and never returned.
 */
export function variableAge(
  name: string,
  value: string,
  parent: number,
  read: ReadStart = readProc,
): "before-parent" | "since" | null {
  let start: string;
  try {
    start = read(parent);
  } catch {
    return null; // another system, another user's process, or one that has ended
  }
  const entry = `${name}=${Buffer.from(value, "utf8").toString("latin1")}`;
  return start.split("\0").includes(entry) ? "before-parent" : "since";
}
