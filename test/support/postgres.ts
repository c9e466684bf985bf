/**
 * A real PostgreSQL server for the tests of one file: in a scratch folder of its own, reached by a socket in that folder,
 * and gone afterwards even when the test process is killed. Databases are made one for each test that asks.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { accessSync, chownSync, constants, mkdtempSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import pg from "pg";

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

/** The folder with the server's programs; null when there is none on this machine. */
export function findServer(): string | null {
  const path = (process.env["PATH"] ?? "").split(delimiter);
  const packaged = listed("/usr/lib/postgresql")
    .sort((a, b) => Number(b) - Number(a))
    .map((major) => join("/usr/lib/postgresql", major, "bin"));
  const folders = [process.env["PG_BIN"] ?? "", ...packaged, ...path].filter((f) => f !== "");
  return folders.find((folder) => ["initdb", "postgres"].every((p) => isProgram(join(folder, p)))) ?? null;
}

/**
 * Why tests that need a server are skipped; null when they run. `REQUIRE_SERVERS=1` turns the skip into a failure.
 */
export function whyNoServer(): string | null {
  if (findServer() !== null) return null;
  const why =
    "no PostgreSQL server on this machine: neither PATH nor /usr/lib/postgresql/*/bin has initdb and postgres";
  if (process.env["REQUIRE_SERVERS"] === "1") throw new Error(why);
  return why;
}

/** Starts a server. */
export async function startServer(settings: Readonly<Record<string, string>> = {}): Promise<TestServer> {
  const bin = findServer();
  if (bin === null) throw new Error(whyNoServer() ?? "no server");
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "hp-pg-")));
  const owner = ownerOf(folder);
  const data = join(folder, "data");
  // Under root everything runs as another user: the server refuses root.
  const made = spawnSync(
    owner.command,
    [
      ...owner.args,
      join(bin, "initdb"),
      "-D",
      data,
      "-U",
      SUPERUSER,
      "-A",
      "trust",
      "-E",
      "UTF8",
      "--no-locale",
      "-N",
      "--no-instructions",
    ],
    { encoding: "utf8", cwd: folder },
  );
  if (made.status !== 0) {
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`initdb failed: ${made.stderr}`);
  }
  const options = { ...SETTINGS, unix_socket_directories: folder, ...settings };
  const flags = Object.entries(options).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const url = (database: string, user = SUPERUSER): string =>
    `postgres://${user}@/${database}?host=${encodeURIComponent(folder)}`;
  let child = launch(owner, join(bin, "postgres"), data, flags, folder);
  await untilReady(url("postgres"));
  const version = (await query(url("postgres"), "SHOW server_version"))[0]?.[0] ?? "";
  let databases = 0;
  return {
    folder,
    version,
    url,
    freshDatabase: async (encoding) => {
      const name = `db${++databases}`;
      const how = encoding === undefined ? "" : ` TEMPLATE template0 ENCODING '${encoding}'`;
      await query(url("postgres"), `CREATE DATABASE ${name}${how}`);
      return url(name);
    },
    exec: async (at, ...sql) => {
      for (const text of sql) await query(at, text);
    },
    restart: async (mode) => {
      await ended(child, mode === "fast" ? "fast" : "immediate");
      child = launch(owner, join(bin, "postgres"), data, flags, folder);
      await untilReady(url("postgres"));
    },
    stop: async () => {
      await ended(child, "immediate");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const SETTINGS: Readonly<Record<string, string>> = {
  listen_addresses: "",
  fsync: "off",
  full_page_writes: "off",
  max_connections: "60",
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

function launch(
  owner: Owner,
  server: string,
  data: string,
  flags: readonly string[],
  folder: string,
): ChildProcess {
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
      if (attempt >= 200) throw e;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

interface Owner {
  readonly command: string;
  readonly args: readonly string[];
}

/** Who runs the server: ourselves, or under root the first ordinary user there is, who then owns the folder. */
function ownerOf(folder: string): Owner {
  if (process.getuid?.() !== 0) return { command: "env", args: [] };
  for (const user of ["postgres", "nobody"]) {
    const [uid, gid] = ["-u", "-g"].map((flag) =>
      Number(spawnSync("id", [flag, user], { encoding: "utf8" }).stdout),
    );
    if (uid === undefined || gid === undefined || !(uid > 0)) continue;
    chownSync(folder, uid, gid);
    return { command: "setpriv", args: [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"] };
  }
  throw new Error("no user to run PostgreSQL as: it refuses root");
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function listed(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
