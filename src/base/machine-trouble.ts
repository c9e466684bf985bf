/** What the machine refuses, in words: the errors of the system and of SQLite that are nobody's fault but the machine's. */
import { codeOf, messageOf } from "./errors.js";

/** What it is, and what helps. */
export interface MachineTrouble {
  /** A clause without a full stop: `the disk is full`. */
  readonly what: string;
  /** One sentence. */
  readonly todo: string;
}

/** Codes of `errno` and of SQLite, extended ones by their beginning. */
const TROUBLES: readonly { readonly codes: RegExp; readonly trouble: MachineTrouble }[] = [
  {
    codes: /^(ENOSPC|EDQUOT|SQLITE_FULL)/,
    trouble: {
      what: "the disk is full",
      todo: "Make room on the disk that holds what Why names, then run the command again.",
    },
  },
  {
    codes: /^(EROFS|SQLITE_READONLY)/,
    trouble: {
      what: "it lies on a file system that is read-only, or is itself",
      todo: "Make it writable, or set `store:` in holdpoint.yaml to a folder that is, then run the command again.",
    },
  },
  {
    codes: /^(EACCES|EPERM|SQLITE_PERM|SQLITE_AUTH)/,
    trouble: {
      what: "this user is not permitted to",
      todo: "Let the user who runs holdpoint read and write what Why names, then run the command again.",
    },
  },
  {
    codes: /^(EMFILE|ENFILE)/,
    trouble: {
      what: "too many files are open",
      todo: "Raise the limit of open files (`ulimit -n`), then run the command again.",
    },
  },
  {
    codes: /^(EIO|SQLITE_IOERR)/,
    trouble: {
      what: "the disk failed",
      todo: "Look at the disk that holds what Why names before anything else; then run the command again.",
    },
  },
];

const OTHER: MachineTrouble = {
  what: "it could not be done",
  todo: "Check disk and permissions of what Why names, then run the command again.",
};

/** The trouble that an error of system or driver is about. */
export function machineTroubleOf(e: unknown): MachineTrouble {
  const code = codeOf(e) ?? "";
  return TROUBLES.find((t) => t.codes.test(code))?.trouble ?? OTHER;
}

/** `the disk is full (ENOSPC: no space left on device, write)`; of anything else its own words. */
export function machineWhy(e: unknown): string {
  const trouble = machineTroubleOf(e);
  return trouble === OTHER ? messageOf(e) : `${trouble.what} (${messageOf(e)})`;
}
