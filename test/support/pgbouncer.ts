/** A real PgBouncer before a server's own socket. It ends with whoever started it, like the servers. */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { connect, ownerOf, type TestServer } from "./postgres.js";

/** A pooler; close it in `finally`. */
export interface TestPooler {
  readonly url: (database: string) => string;
  readonly stop: () => Promise<void>;
}

/** Why tests that need it are skipped; null when they run. `REQUIRE_SERVERS=1` turns the skip into a failure. */
export function whyNoPgBouncer(): string | null {
  if (program() !== null) return null;
  const why = "PgBouncer is not on this machine: PATH and /usr/sbin were looked through (package pgbouncer)";
  if (process.env["REQUIRE_SERVERS"] === "1") throw new Error(why);
  return why;
}

function program(): string | null {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin"];
  return folders.map((folder) => join(folder, "pgbouncer")).find((path) => existsSync(path)) ?? null;
}

/** Starts one that pools that way, with one connection to the server for all that come. */
export async function startPgBouncer(
  server: TestServer,
  mode: "session" | "transaction",
): Promise<TestPooler> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "hp-pb-")));
  const owner = ownerOf(folder);
  chmodSync(folder, 0o755);
  const [settings, users] = [join(folder, "ini"), join(folder, "users")];
  writeFileSync(users, '"postgres" ""\n');
  writeFileSync(
    settings,
    `[databases]
* = host=${server.folder}
[pgbouncer]
unix_socket_dir = ${folder}
listen_port = 5432
auth_type = trust
auth_file = ${users}
pool_mode = ${mode}
default_pool_size = 1
`,
  );
  // The shell holds our pipe: when this process ends in any way, it ends the pooler and removes the folder.
  const keeper = `"$@" </dev/null >/dev/null 2>&1 & pid=$!; read -r line; kill $pid; wait $pid; rm -rf "${folder}"`;
  const run = [...owner.args, "sh", "-c", keeper, "sh", program() ?? "", settings];
  const child = spawn(owner.command, run, { stdio: ["pipe", "ignore", "ignore"], cwd: "/" });
  const over = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = (database: string): string =>
    `postgres://postgres@/${database}?host=${encodeURIComponent(folder)}`;
  for (let attempt = 0; ; attempt++) {
    try {
      await (await connect(url("postgres"))).close();
      break;
    } catch (e) {
      if (attempt >= 200) throw e;
      spawnSync("sleep", ["0.05"]);
    }
  }
  return {
    url,
    stop: async () => {
      child.stdin.end();
      await over;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
