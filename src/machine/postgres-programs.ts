/**
 * PostgreSQL's own programs on this machine: found, run with an environment of a few named variables, and, for a server of
 * our own, started in a private folder and ended with us. Nothing secret is ever an argument: arguments stand in the
 * process list.
 */
import { spawn } from "node:child_process";
import {
  accessSync,
  chownSync,
  constants,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  readdirSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, isAbsolute, join } from "node:path";
import { setTimeout } from "node:timers/promises";

/** A folder with the programs that were asked for. */
export interface ProgramFolder {
  readonly folder: string;
  readonly major: number;
  /** As the first program tells it: `pg_dump (PostgreSQL) 15.18`. */
  readonly version: string;
}

/** How a program ended; `why` is what it said on stderr. */
export interface ProgramEnd {
  readonly ok: boolean;
  readonly output: string;
  readonly why: string;
}

/** A server of our own, reached by a socket in a folder that only its owner may enter. */
export interface ScratchServer {
  readonly host: string;
  readonly user: string;
  readonly stop: () => Promise<void>;
}

/** What can be done with the programs. */
export interface PostgresPrograms {
  /** The folders that have all of these programs, by version, oldest first. */
  readonly having: (programs: readonly string[]) => Promise<readonly ProgramFolder[]>;
  /** Runs one to its end. `env` is the whole environment that it gets, but for the search path and the language. */
  readonly run: (
    path: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ) => Promise<ProgramEnd>;
  /** Why no server can be started here; null where one can. */
  readonly whyNoServer: () => string | null;
  /** Starts a server from these programs; its data lies in `folder` where it may. */
  readonly start: (programs: string, folder: string) => Promise<ScratchServer>;
}

/** Folders in which packages put the programs of several versions side by side, outside of the search path. */
const PACKAGED = [
  { root: "/usr/lib/postgresql", below: "bin" },
  { root: "/usr/local/lib/postgresql", below: "bin" },
  { root: "/opt/homebrew/opt", below: "bin" },
] as const;

/** Folders that may have programs: those of the search path, then those of packages. */
export function programFolders(path: string | undefined): readonly string[] {
  const packaged = PACKAGED.flatMap(({ root, below }) =>
    listed(root)
      .filter((name) => root !== "/opt/homebrew/opt" || name.startsWith("postgresql"))
      .map((name) => join(root, name, below)),
  );
  return [...(path ?? "").split(delimiter).filter(isAbsolute), ...packaged];
}

/** The programs in these folders. */
export function postgresPrograms(folders: readonly string[]): PostgresPrograms {
  return {
    having: async (programs) => {
      const places = new Set(folders.flatMap((folder) => realFolder(folder, programs) ?? []));
      const found: ProgramFolder[] = [];
      for (const folder of places) {
        const version = await versionIn(join(folder, programs[0] ?? ""));
        if (version !== null) found.push({ folder, ...version });
      }
      return found.sort((a, b) => a.major - b.major);
    },
    run: (path, args, env) => run(path, args, env),
    whyNoServer: () =>
      process.getuid?.() === 0 && serverOwner() === null
        ? "a PostgreSQL server refuses to run as root, and this machine has no user postgres to run it as"
        : null,
    start,
  };
}

/** Where all programs really lie. A wrapper that chooses a version by itself is none: its target has another name. */
function realFolder(folder: string, programs: readonly string[]): string | null {
  const real = new Set<string>();
  for (const program of programs) {
    try {
      const path = realpathSync(join(folder, program));
      accessSync(path, constants.X_OK);
      if (basename(path) !== program) return null;
      real.add(dirname(path));
    } catch {
      return null; // not there, or not for us
    }
  }
  const [only] = real;
  return real.size === 1 && only !== undefined ? only : null;
}

async function versionIn(path: string): Promise<{ readonly major: number; readonly version: string } | null> {
  const { ok, output } = await run(path, ["--version"], {});
  const major = /\(PostgreSQL\) (\d+)/.exec(output)?.[1];
  return ok && major !== undefined ? { major: Number(major), version: output.trim() } : null;
}

function run(
  path: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  as: { readonly uid?: number; readonly gid?: number; readonly cwd?: string } = {},
): Promise<ProgramEnd> {
  return new Promise((resolve) => {
    const child = spawn("/bin/sh", ["-c", MINDER, path, ...args], {
      env: environment(env),
      stdio: ["pipe", "pipe", "pipe"],
      ...as,
    });
    child.stdin.on("error", () => undefined);
    const [output, errors]: [Buffer[], Buffer[]] = [[], []];
    let said = 0;
    child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => {
      if (said < 8_000) errors.push(chunk);
      said += chunk.length;
    });
    child.on("error", (e) => resolve({ ok: false, output: "", why: e.message }));
    child.on("close", (code, signal) => {
      const text = Buffer.concat(errors).toString("utf8").trim();
      const why = text === "" ? `it ended with ${signal ?? String(code)}` : text;
      resolve({ ok: code === 0, output: Buffer.concat(output).toString("utf8"), why });
    });
  });
}

/**
 * The program as the child of a shell that holds our pipe: when this process is killed, the pipe closes, and the program is
 * ended. Nobody would wait for it any more, and it would go on loading a server.
 */
const MINDER = `
exec 3<&0
"$0" "$@" </dev/null 3<&- & pid=$!
{ read -r line <&3; kill $pid; } >/dev/null 2>&1 & minder=$!
exec 3<&-
wait $pid
code=$?
kill $minder 2>/dev/null
exit $code
`;

/** The language is fixed, because what the programs say is read. */
function environment(env: Readonly<Record<string, string>>): Record<string, string> {
  return { PATH: "/usr/bin:/bin", LC_ALL: "C", ...env };
}

const SUPERUSER = "holdpoint";
const START_MS = 60_000;

/**
 * The server as the child of a shell that holds our pipe, from the making of its data on: when this process ends in any
 * way, the pipe closes, and the shell stops the server and removes its folders.
 */
const KEEPER = `
programs=$1; data=$2; socket=$3; shift 3
trap '' PIPE # what is said when nobody listens any more must not end the shell
"$programs/initdb" -D "$data" -U ${SUPERUSER} -A trust -E UTF8 --no-locale -N </dev/null >/dev/null || {
  rm -rf "$data" "$socket"
  exit 1
}
exec 2>/dev/null
"$programs/postgres" -D "$data" -c unix_socket_directories="$socket" "$@" </dev/null >/dev/null 2>&1 &
pid=$!
read -r line
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$data" "$socket"
exit 0
`;

/** Nothing here has to outlive a crash: the data is a copy that is looked at once. */
const SETTINGS = {
  listen_addresses: "",
  fsync: "off",
  full_page_writes: "off",
  synchronous_commit: "off",
  autovacuum: "off",
  max_connections: "20",
  max_wal_senders: "0",
  wal_level: "minimal",
  unix_socket_permissions: "0700",
} as const;

async function start(programs: string, folder: string): Promise<ScratchServer> {
  const owner = serverOwner();
  // A socket's path may have about a hundred characters, so it cannot lie in the store.
  const socket = mkdtempSync(join(realpathSync(tmpdir()), "holdpoint-pg-"));
  if (owner !== null) chownSync(socket, owner.uid, owner.gid);
  // The store is closed to every other user, so under root the data lies beside the socket.
  const data = join(owner === null ? folder : socket, "data");
  const as = owner === null ? { cwd: socket } : { ...owner, cwd: socket };
  const remove = (): void => {
    for (const path of [data, socket]) rmSync(path, { recursive: true, force: true });
  };
  const flags = Object.entries(SETTINGS).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const child = spawn("/bin/sh", ["-c", KEEPER, "sh", programs, data, socket, ...flags], {
    env: environment({}),
    stdio: ["pipe", "ignore", "pipe"],
    detached: true, // an interruption of ours must not end the shell before it has stopped the server
    ...as,
  });
  let [over, said] = [false, ""];
  child.stderr.on("data", (chunk: Buffer) => {
    if (said.length < 8_000) said += chunk.toString();
  });
  const ended = new Promise<void>((resolve) => {
    const end = (): void => {
      over = true;
      resolve();
    };
    child.once("exit", end);
    child.once("error", end);
  });
  child.stdin.on("error", () => undefined);
  const stop = async (): Promise<void> => {
    child.stdin.end();
    await ended;
    remove();
  };
  for (const until = Date.now() + START_MS; !isReady(data); await setTimeout(20)) {
    if (!over && Date.now() < until) continue;
    await stop();
    throw new Error(`a scratch server did not start${said === "" ? "" : `: ${said.trim()}`}`);
  }
  return { host: socket, user: SUPERUSER, stop };
}

/** What the server itself writes once it takes connections (`postmaster.pid`, line 8). */
function isReady(data: string): boolean {
  try {
    return readFileSync(join(data, "postmaster.pid"), "latin1").split("\n")[7]?.trim() === "ready";
  } catch {
    return false; // not written yet
  }
}

/** Under root the user postgres, because a server refuses root; null for ourselves. */
function serverOwner(): { readonly uid: number; readonly gid: number } | null {
  if (process.getuid?.() !== 0) return null;
  try {
    const line = readFileSync("/etc/passwd", "utf8")
      .split("\n")
      .find((l) => l.startsWith("postgres:"));
    const [, , uid, gid] = line?.split(":") ?? [];
    return Number(uid) > 0 && Number(gid) > 0 ? { uid: Number(uid), gid: Number(gid) } : null;
  } catch {
    return null;
  }
}

function listed(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
