/** What `doctor` asks this machine: who may write a file, and which variables lead straight to a target. Reads only. */
import { accessSync, constants, readFileSync, realpathSync, statSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";

/** A file or folder as its owner left it. */
export interface FileFacts {
  /** Permission bits, `0o644`. */
  readonly mode: number;
  /** Whether this login owns it; null where there are no owners. */
  readonly mine: boolean | null;
  /** Whether this login may write it. */
  readonly writable: boolean;
  /** The file system it lies on: equal numbers fail together. */
  readonly device: number;
}

/** Facts of a path with links resolved; null when there is none or it cannot be looked at. */
export function fileFacts(path: string): FileFacts | null {
  try {
    const facts = statSync(path);
    const me = process.getuid?.();
    return {
      mode: facts.mode & 0o777,
      mine: me === undefined ? null : facts.uid === me,
      writable: mayWrite(path),
      device: facts.dev,
    };
  } catch {
    return null; // not there, or not for us: either way nothing can be said about it
  }
}

/** A job is no longer than this, in bytes. */
const LONGEST_TEXT = 4 * 1024 * 1024;

/** The text of a file; null where it cannot be read, or is larger than any job. */
export function fileText(path: string): string | null {
  try {
    return statSync(path).size > LONGEST_TEXT ? null : readFileSync(path, "utf8");
  } catch {
    return null; // not there, or not for us: whoever needs it is told then
  }
}

function mayWrite(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Names of variables whose value is an address of the same place: any tool that reads them goes there without a
 * plan. Values are compared and never returned.
 * @param address the target's own address, variables filled in
 * @param root what a relative path is relative to
 */
export function variablesNaming(
  env: Readonly<Record<string, string | undefined>>,
  address: string,
  root: string,
): readonly string[] {
  const place = placeOf(address, root);
  if (place === null) return [];
  const naming = Object.entries(env)
    .filter(([, value]) => value !== undefined && placeOf(value.trim(), root) === place)
    .map(([name]) => name);
  const libpq = libpqAddress(env);
  if (libpq !== null && placeOf(libpq, root) === place) naming.push("PGHOST");
  return naming.sort();
}

/** Where `psql` without arguments goes. */
function libpqAddress(env: Readonly<Record<string, string | undefined>>): string | null {
  const { PGHOST: host, PGPORT: port, PGDATABASE: database, PGUSER: user } = env;
  const name = database ?? user;
  if (host === undefined || host === "" || host.startsWith("/") || name === undefined) return null;
  return `postgres://${host}:${port ?? "5432"}/${encodeURIComponent(name)}`;
}

const FILE_SCHEMES = /^(?:sqlite3?|file):(?:\/\/(?=\/))?/i;

/** One text for one place: a real path, or scheme, host, port and database. Null for what is no address. */
export function placeOf(text: string, root: string): string | null {
  const path = text.replace(FILE_SCHEMES, "").replace(/[?#].*$/s, "");
  if (FILE_SCHEMES.test(text) || isAbsolute(text))
    return path === "" ? null : `file ${realOf(resolve(root, path))}`;
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text) || !URL.canParse(text)) return null;
  const url = new URL(text);
  const scheme = url.protocol.replace(/^postgresql:$/, "postgres:");
  const port = url.port === "" && scheme === "postgres:" ? "5432" : url.port;
  return url.hostname === "" ? null : `${scheme} ${url.hostname.toLowerCase()} ${port} ${url.pathname}`;
}

function realOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
