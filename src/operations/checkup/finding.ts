/** One thing that `doctor` looked at, and how bad it is. */
import { HoldpointError, type NextStep } from "../../base/errors.js";

/** How bad it is: `stop` prevents work or opens a way around; `look` is for a person to judge. */
export type Level = "ok" | "look" | "stop";

/** One thing that was looked at. */
export interface DoctorFinding {
  /** Stable name: `config`, `people`, `keys`, `policies`, `rules`, `files`, `store`, `ledger`, `target`, `role`, `way-around`. */
  readonly check: string;
  /** The target it is about, where it is about one. */
  readonly target: string | null;
  readonly level: Level;
  readonly what: string;
  /** What to do; empty for `ok`. */
  readonly todo: readonly NextStep[];
}

/** What this machine tells about files and variables; `machine/` implements it. */
export interface MachineProbe {
  readonly file: (path: string) => {
    readonly mode: number;
    readonly mine: boolean | null;
    readonly writable: boolean;
    readonly device: number;
  } | null;
  /** Names of variables that lead to the target without holdpoint; the one that its own url names is among them. */
  readonly variablesNaming: (target: string) => readonly string[];
  /** The text of a file; null where it cannot be read, or is larger than any job. */
  readonly text: (path: string) => string | null;
  /** Lines of files in reach that lead to the target: `.env:3 DATABASE_URL`. Never what stands there. */
  readonly credentialFiles: (
    target: string,
  ) => readonly { readonly where: string; readonly kind: "dotenv" | "pgpass" | "service" }[];
}

/** What happened and why, in one clause. */
export function problem(e: HoldpointError): string {
  return e.why === undefined ? e.message : `${e.message}: ${e.why}`;
}

/** One thing to do, in words. */
export function say(text: string): readonly NextStep[] {
  return [{ actor: "anyone", text }];
}

/** Nothing to do. */
export function ok(check: string, what: string): DoctorFinding {
  return { check, target: null, level: "ok", what, todo: [] };
}

/** For a person to judge. */
export function look(check: string, what: string, todo: readonly NextStep[]): DoctorFinding {
  return { check, target: null, level: "look", what, todo };
}

/** Prevents work, or opens a way around. */
export function stop(check: string, what: string, todo: readonly NextStep[] = []): DoctorFinding {
  return { check, target: null, level: "stop", what, todo };
}

/** `1 job`, `2 jobs`. */
export function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}
