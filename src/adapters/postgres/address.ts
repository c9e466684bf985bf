/**
 * Where a PostgreSQL server is and how to talk to it: from a URL and the `PG*` variables to what the driver takes. What
 * is not understood is refused by name, and no error repeats the URL, because a password may stand in it.
 */
import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";
import { codeOf, messageOf, UsageError } from "../../base/errors.js";
import { fromPassFile } from "./pass-file.js";

/** How the connection is protected, in libpq's words. */
export type TlsMode = "disable" | "prefer" | "require" | "verify-ca" | "verify-full";

/** Everything a connection needs. */
export interface Address {
  /** A host name, or the folder of a socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  /** Undefined where none stands anywhere; then {@link Address.whyNoPassword} says where it was looked for. */
  readonly password: string | undefined;
  readonly whyNoPassword: string;
  readonly tls: TlsMode;
  /** Without an authority those count that come with Node.js. */
  readonly tlsFiles: {
    readonly ca?: string | undefined;
    readonly cert?: string;
    readonly key?: string;
  };
  /** Where parts came from that do not stand in the url: `host` and `PGHOST`. Never a value. */
  readonly origins: readonly { readonly part: string; readonly from: string }[];
  /** Without user and password, for people: `shop on db1.example:5432`. */
  readonly shown: string;
}

const TLS_MODES = ["disable", "prefer", "require", "verify-ca", "verify-full"] as const;
const PARAMETERS = new Set([
  "host",
  "port",
  "user",
  "password",
  "dbname",
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "application_name",
  "service",
]);

/** The variable of each parameter that libpq has one for. */
const VARIABLES: Readonly<Record<string, string>> = {
  host: "PGHOST",
  port: "PGPORT",
  user: "PGUSER",
  dbname: "PGDATABASE",
  password: "PGPASSWORD",
  sslmode: "PGSSLMODE",
  sslrootcert: "PGSSLROOTCERT",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
};

/**
 * What libpq reads and this does not. Left aside in silence they would lead to another server, or to less care, than every
 * other client takes here; values that change nothing are let through.
 */
const UNREAD: Readonly<Record<string, RegExp>> = {
  PGOPTIONS: /^\s*$/,
  PGHOSTADDR: /^$/,
  PGREQUIREPEER: /^$/,
  PGREQUIREAUTH: /^$/,
  PGCHANNELBINDING: /^(|disable|prefer)$/,
  PGTARGETSESSIONATTRS: /^(|any)$/,
  PGLOADBALANCEHOSTS: /^(|disable)$/,
  PGSSLCRL: /^$/,
  PGSSLCRLDIR: /^$/,
  PGREPLICATION: /^$/,
};

/**
 * Reads `postgres://[user[:password]@][host][:port][/database][?parameter=value…]`; what is missing comes from the service
 * that `service=` or `PGSERVICE` names (`PGSERVICEFILE`, `~/.pg_service.conf`, `$PGSYSCONFDIR/pg_service.conf`), then from
 * the variables `PGHOST`, `PGPORT`, `PGUSER` …, in libpq's order, and a password from `.pgpass`.
 * @throws UsageError ERR_TARGET_UNSUPPORTED for another form, several hosts, or a parameter or variable of libpq's that this
 * version does not know.
 */
export function parseAddress(
  url: string,
  env: Readonly<Record<string, string | undefined>>,
  login: string,
): Address {
  const parts = /^postgres(?:ql)?:\/\/(?:([^@/?#]*)@)?([^/?#@]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(url);
  if (parts === null) throw unsupported("the url is not of the form postgres://user@host:port/database");
  refuseUnread(env);
  const [, credentials = "", authority = "", path = "", query = ""] = parts;
  const given = parametersOf(query);
  const [user = "", ...secret] = credentials.split(":");
  const { host, port } = hostAndPort(authority);
  const service = readService(given.get("service") ?? env["PGSERVICE"] ?? "", env);
  const origins: { readonly part: string; readonly from: string }[] = [];
  const get = (name: string, first: string): string => {
    if (first !== "") return first;
    const inUrl = given.get(name);
    if (inUrl !== undefined) return inUrl;
    const ofService = service?.values.get(name);
    const variable = VARIABLES[name] ?? "";
    const value = ofService ?? env[variable] ?? "";
    if (value !== "")
      origins.push({ part: name, from: ofService === undefined ? variable : (service?.from ?? "") });
    return value;
  };
  const found = {
    host: get("host", host) || "localhost",
    port: portOf(get("port", port) || "5432"),
    user: get("user", decoded(user)) || login,
  };
  const database = get("dbname", decoded(path)) || found.user;
  const password = get("password", decoded(secret.join(":")));
  if (found.host.includes(",")) throw unsupported("the url names several hosts: name the primary's");
  const kept = password === "" ? fromPassFile({ ...found, database }, env) : null;
  if (kept?.kind === "found") origins.push({ part: "password", from: `${kept.file}:${kept.line}` });
  const mode = get("sslmode", "");
  const tlsFiles = filesOf((name) => get(name, ""));
  const isSystem = tlsFiles.ca === "system";
  return {
    ...found,
    database,
    password: kept?.kind === "found" ? kept.password : password === "" ? undefined : password,
    whyNoPassword: kept?.kind === "none" ? kept.why : "",
    tls: isSystem ? ofSystem(mode) : tlsMode(mode, found.host, tlsFiles.ca),
    tlsFiles: isSystem ? { ...tlsFiles, ca: undefined } : tlsFiles,
    origins,
    shown: `${database} on ${found.host}${found.host.startsWith("/") ? "" : `:${found.port}`}`,
  };
}

/** What the driver takes for TLS; `false` for none. `prefer` and `require` encrypt and check nothing, as in libpq. */
export function tlsOptions(address: Address): false | ConnectionOptions {
  const { tls, tlsFiles } = address;
  if (tls === "disable" || address.host.startsWith("/")) return false;
  const files = {
    ...(tlsFiles.ca === undefined ? {} : { ca: fileOf(tlsFiles.ca) }),
    ...(tlsFiles.cert === undefined ? {} : { cert: fileOf(tlsFiles.cert) }),
    ...(tlsFiles.key === undefined ? {} : { key: fileOf(tlsFiles.key) }),
  };
  if (tls === "verify-full") return { ...files, rejectUnauthorized: true };
  if (tls === "verify-ca")
    return { ...files, rejectUnauthorized: true, checkServerIdentity: () => undefined };
  return { ...files, rejectUnauthorized: false };
}

function parametersOf(query: string): ReadonlyMap<string, string> {
  const given = new Map<string, string>();
  for (const pair of query.split("&").filter((p) => p !== "")) {
    const [name = "", ...value] = pair.split("=");
    const key = decoded(name);
    if (!PARAMETERS.has(key))
      throw unsupported(`the url has a parameter that is not supported: ${key.slice(0, 40)}`);
    given.set(key, decoded(value.join("=")));
  }
  return given;
}

function hostAndPort(authority: string): { readonly host: string; readonly port: string } {
  const bracketed = /^\[([0-9A-Fa-f:.]+)\](?::(\d+))?$/.exec(authority);
  if (bracketed !== null) return { host: bracketed[1] ?? "", port: bracketed[2] ?? "" };
  const at = authority.lastIndexOf(":");
  if (at < 0) return { host: decoded(authority), port: "" };
  return { host: decoded(authority.slice(0, at)), port: authority.slice(at + 1) };
}

function portOf(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw unsupported("the port of the url is no port");
  return port;
}

function tlsMode(text: string, host: string, ca: string | undefined): TlsMode {
  if (text === "") return /^(localhost|127\.|::1$|\/)/.test(host) ? "disable" : "prefer";
  const mode = TLS_MODES.find((m) => m === text);
  if (mode === undefined) throw unsupported(`sslmode wants one of ${TLS_MODES.join(", ")}`);
  // As in libpq: whoever names an authority wants it asked.
  return mode === "require" && ca !== undefined ? "verify-ca" : mode;
}

/** The public authorities issue for everybody, so only the name tells whose server it is. */
function ofSystem(text: string): TlsMode {
  if (text === "" || text === "verify-full") return "verify-full";
  throw unsupported("sslrootcert=system wants sslmode=verify-full");
}

function refuseUnread(env: Readonly<Record<string, string | undefined>>): void {
  const name = Object.keys(UNREAD).find((n) => UNREAD[n]?.test(env[n] ?? "") === false);
  if (name === undefined) return;
  throw unsupported(
    `the environment variable ${name} is set, which PostgreSQL's own clients obey and holdpoint does not: unset it for this command`,
  );
}

function filesOf(get: (name: string) => string): Address["tlsFiles"] {
  const [ca = "", cert = "", key = ""] = ["sslrootcert", "sslcert", "sslkey"].map(get);
  return { ...(ca === "" ? {} : { ca }), ...(cert === "" ? {} : { cert }), ...(key === "" ? {} : { key }) };
}

interface Service {
  readonly values: ReadonlyMap<string, string>;
  readonly from: string;
}

/** A section of the first service file that has it. A name that stands nowhere is refused: libpq would connect elsewhere. */
function readService(name: string, env: Readonly<Record<string, string | undefined>>): Service | null {
  if (name === "") return null;
  const own = env["PGSERVICEFILE"] ?? (env["HOME"] === undefined ? "" : `${env["HOME"]}/.pg_service.conf`);
  const files = [own, env["PGSYSCONFDIR"] === undefined ? "" : `${env["PGSYSCONFDIR"]}/pg_service.conf`];
  for (const file of files.filter((f) => f !== "")) {
    const values = sectionOf(file, name);
    if (values !== null) return { values, from: `service ${name} of ${file}` };
  }
  throw unsupported(`no service file has a service ${name}`);
}

function sectionOf(file: string, name: string): ReadonlyMap<string, string> | null {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (e) {
    if (codeOf(e) === "ENOENT") return null;
    throw unsupported(`the service file ${file} cannot be read: ${codeOf(e) ?? "unreadable"}`);
  }
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const start = lines.indexOf(`[${name}]`);
  if (start < 0) return null;
  const values = new Map<string, string>();
  for (const line of lines.slice(start + 1)) {
    if (line.startsWith("[")) break;
    if (line === "" || line.startsWith("#")) continue;
    const at = line.indexOf("=");
    const key = line.slice(0, Math.max(at, 0)).trim();
    if (!PARAMETERS.has(key) || key === "service")
      throw unsupported(`service ${name} has a parameter that is not supported: ${key.slice(0, 40)}`);
    values.set(key, line.slice(at + 1).trim());
  }
  return values;
}

function fileOf(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (e) {
    throw unsupported(`a file that the url names for TLS cannot be read: ${messageOf(e)}`);
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw unsupported("the url has a % that begins no escape: write %25 for a percent sign");
  }
}

function unsupported(why: string): UsageError {
  return new UsageError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: "the address of this PostgreSQL target cannot be used",
    why,
  });
}
