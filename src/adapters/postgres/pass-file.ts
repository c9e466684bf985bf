/**
 * Passwords of `.pgpass`, as libpq reads them: lines of `host:port:database:user:password` where `*` stands for any and a
 * backslash takes the meaning from `:` and `\`. The first line that fits counts. A file that others may read is not used.
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { codeOf } from "../../base/errors.js";

/** What a password is looked up by. */
export interface Login {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/** What was found: a password with the line that has it, or in words why there is none. */
export type Found =
  | { readonly kind: "found"; readonly password: string; readonly file: string; readonly line: number }
  | { readonly kind: "none"; readonly why: string };

/** Folders in which packages of PostgreSQL put the socket; a file of passwords calls them `localhost`. */
const SOCKET_FOLDERS: readonly string[] = ["/tmp", "/var/run/postgresql", "/run/postgresql"];

/** Looks it up in the file that `PGPASSFILE` names, else in `~/.pgpass`. Never throws. */
export function fromPassFile(login: Login, env: Readonly<Record<string, string | undefined>>): Found {
  const file = passFileOf(env);
  if (file === null) return { kind: "none", why: "there is no home folder with a .pgpass" };
  let text: string;
  try {
    const { mode } = statSync(file);
    if ((mode & 0o077) !== 0)
      return {
        kind: "none",
        why: `${file} is not used, because others than its owner may read it (mode 0${(mode & 0o777).toString(8)}): chmod 600 ${file}`,
      };
    text = readFileSync(file, "utf8");
  } catch (e) {
    const why = codeOf(e) === "ENOENT" ? "there is no" : "nobody may read";
    return { kind: "none", why: `${why} ${file}` };
  }
  const lines = text.split(/\r?\n/);
  for (const [i, line] of lines.entries()) {
    const password = passwordIn(line, login);
    if (password !== null) return { kind: "found", password, file, line: i + 1 };
  }
  return { kind: "none", why: `no line of ${file} is for this host, port, database and user` };
}

/** The file of passwords that libpq would read; null where there is no home folder. */
export function passFileOf(env: Readonly<Record<string, string | undefined>>): string | null {
  const named = env["PGPASSFILE"] ?? "";
  if (named !== "") return named;
  const home = env["HOME"] ?? "";
  return home === "" ? null : join(home, ".pgpass");
}

function passwordIn(line: string, { host, port, database, user }: Login): string | null {
  if (line.startsWith("#")) return null;
  const parts =
    /^((?:\\.|[^\\:])*):((?:\\.|[^\\:])*):((?:\\.|[^\\:])*):((?:\\.|[^\\:])*):((?:\\.|[^\\:])*)/.exec(line);
  if (parts === null) return null;
  const [named = "", ...rest] = parts.slice(1, 5).map(unescaped);
  const hosts = SOCKET_FOLDERS.includes(host) ? [host, "localhost"] : [host];
  const isHost = named === "*" || hosts.includes(named);
  const isRest = [String(port), database, user].every((is, i) => rest[i] === "*" || rest[i] === is);
  const password = unescaped(parts[5] ?? "");
  return isHost && isRest && password !== "" ? password : null;
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(.)/g, "$1");
}
