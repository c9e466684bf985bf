/**
 * Files in reach that lead straight to a target: dotenv files of the project, PostgreSQL's password and service files.
 * Contents are compared and never returned; what comes back is where to look.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { placeOf } from "./probe.js";

type Variables = Readonly<Record<string, string | undefined>>;

/** A line of a file that leads to the target. */
export interface CredentialLine {
  /** `.env.production:3 DATABASE_URL`, `~/.pgpass:2`. */
  readonly where: string;
  /** Who reads such a file: every tool that loads it, or only clients of PostgreSQL, this one among them. */
  readonly kind: "dotenv" | "pgpass" | "service";
}

/** Larger than any file of credentials a person wrote. */
const MOST_BYTES = 256 * 1024;

/** The lines that lead to `address`, in the order of the files. */
export function credentialFiles(args: {
  readonly address: string;
  readonly root: string;
  readonly home: string;
  readonly env: Variables;
}): readonly CredentialLine[] {
  const { address, root, home, env } = args;
  const shown = (path: string): string =>
    path.startsWith(`${home}/`)
      ? `~/${relative(home, path)}`
      : path.startsWith(root)
        ? relative(root, path)
        : path;
  return [
    ...dotenvFiles(root).flatMap((path) => dotenvLines(path, shown(path), address, root)),
    ...passwordLines(env["PGPASSFILE"] ?? join(home, ".pgpass"), address, shown),
    ...serviceLines(env["PGSERVICEFILE"] ?? join(home, ".pg_service.conf"), address, shown),
  ];
}

function dotenvFiles(root: string): readonly string[] {
  try {
    return readdirSync(root)
      .filter((name) => /^\.env(?:\.|$)/.test(name))
      .sort()
      .map((name) => join(root, name));
  } catch {
    return [];
  }
}

function dotenvLines(path: string, shown: string, address: string, root: string): readonly CredentialLine[] {
  const place = placeOf(address, root);
  if (place === null) return [];
  return linesOf(path).flatMap((line, i): CredentialLine[] => {
    const [, name = "", raw = ""] =
      /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    const value = raw.replace(/^(["'])(.*)\1$/, "$2");
    if (name === "" || value === "" || placeOf(value, root) !== place) return [];
    return [{ where: `${shown}:${i + 1} ${name}`, kind: "dotenv" }];
  });
}

/** `host:port:database:user:password`, where `*` stands for any. */
function passwordLines(
  path: string,
  address: string,
  shown: (path: string) => string,
): readonly CredentialLine[] {
  const server = serverOf(address);
  if (server === null) return [];
  return linesOf(path).flatMap((line, i): CredentialLine[] => {
    if (line.startsWith("#")) return [];
    const [host = "", port = "", database = "", , password] = line.split(/(?<!\\):/);
    if (password === undefined || password === "") return [];
    const meets = (wanted: string, is: string): boolean => wanted === "*" || wanted === is;
    const all = meets(host, server.host) && meets(port, server.port) && meets(database, server.database);
    return all ? [{ where: `${shown(path)}:${i + 1}`, kind: "pgpass" }] : [];
  });
}

/** Sections `[name]` of `key=value` lines. */
function serviceLines(
  path: string,
  address: string,
  shown: (path: string) => string,
): readonly CredentialLine[] {
  const server = serverOf(address);
  if (server === null) return [];
  const found: CredentialLine[] = [];
  let section: { readonly at: number; readonly values: Map<string, string> } | null = null;
  const close = (): void => {
    if (section === null) return;
    const { at, values } = section;
    const same =
      values.get("host") === server.host &&
      (values.get("port") ?? "5432") === server.port &&
      values.get("dbname") === server.database;
    if (same) found.push({ where: `${shown(path)}:${at}`, kind: "service" });
  };
  for (const [i, line] of linesOf(path).entries()) {
    if (/^\s*\[.*\]\s*$/.test(line)) {
      close();
      section = { at: i + 1, values: new Map() };
    } else {
      const [, key = "", value = ""] = /^\s*([a-z_]+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
      if (key !== "") section?.values.set(key, value);
    }
  }
  close();
  return found;
}

function serverOf(
  address: string,
): { readonly host: string; readonly port: string; readonly database: string } | null {
  if (!/^postgres(?:ql)?:\/\//i.test(address) || !URL.canParse(address)) return null;
  const url = new URL(address);
  const database = decodeURIComponent(url.pathname.slice(1));
  return { host: url.hostname, port: url.port === "" ? "5432" : url.port, database };
}

function linesOf(path: string): readonly string[] {
  try {
    if (statSync(path).size > MOST_BYTES) return [];
    return readFileSync(path, "utf8").split(/\r?\n/);
  } catch {
    return []; // not there, or not for us: then it leads nobody here either
  }
}
