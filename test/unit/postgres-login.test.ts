/**
 * Coming in as people do: TLS with what is checked, and a password from wherever clients of PostgreSQL keep one, against a
 * real server that asks for it (SCRAM). Where each value came from is evidence; the password is shown nowhere.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { messageOf } from "../../src/base/errors.js";
import { whyNoServer } from "../support/postgres.js";
import { makePostgresProject } from "../support/postgres-project.js";
import { folderOf, wrapPrograms } from "../support/postgres-programs.js";
import { CERTIFICATES, type SecuredServer, startSecured } from "../support/postgres-secured.js";
import { openPostgresTarget } from "../support/postgres-target.js";
import type { Ran } from "../support/project.js";
import { refusal } from "../support/refusal.js";

const CA = encodeURIComponent(join(CERTIFICATES, "ca.crt"));
const OTHER = encodeURIComponent(join(CERTIFICATES, "other-ca.crt"));
/** With what a line of `.pgpass` must escape. */
const PASSWORD = "open:sesame\\17";
const IN_A_FILE = "open\\:sesame\\\\17";

type Env = Readonly<Record<string, string>>;

const why = whyNoServer();
(why === null ? describe : describe.skip)(`a login${why === null ? "" : `: ${why}`}`, () => {
  let server: SecuredServer;
  let home: string;
  beforeAll(async () => {
    server = await startSecured();
    const at = server.url("postgres");
    await server.exec(at, `CREATE ROLE ada LOGIN PASSWORD '${PASSWORD}'`, "CREATE DATABASE shop OWNER ada");
  });
  afterAll(async () => {
    await server.stop();
  });
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), "holdpoint-home-"));
  });
  afterEach(() => rmSync(home, { recursive: true }));

  const wanted = (): string => `postgres://ada@127.0.0.1:${server.port}/shop`;

  /** What a target says of how it was reached. */
  async function told(url: string, env: Env = {}): Promise<Readonly<Record<string, string>>> {
    const target = await openPostgresTarget(url, { env: { HOME: home, ...env } });
    try {
      const { signals } = await target.identify();
      expect(JSON.stringify(signals)).not.toContain("sesame");
      return Object.fromEntries(signals.map((s) => [s.source, s.detail]));
    } finally {
      await target.close();
    }
  }
  async function refused(url: string, env: Env = {}): Promise<readonly [string, string, string]> {
    const e = await refusal(() => openPostgresTarget(url, { env: { HOME: home, ...env } }));
    const all = [e.message, e.why, e.next, e.details, messageOf(e.cause)];
    expect(JSON.stringify(all)).not.toContain("sesame");
    return [e.code, e.why ?? "", e.next[0]?.text ?? ""];
  }

  describe("over TLS", () => {
    const url = (host: string, query: string): string =>
      `postgres://postgres:sesame-17@${host}:${server.port}/postgres?${query}`;

    test.each([
      [`sslmode=verify-full&sslrootcert=${CA}`, "issuer and name checked"],
      [`sslmode=verify-ca&sslrootcert=${CA}`, "issuer checked, name not"],
      // As in libpq: an authority that is named is asked.
      [`sslmode=require&sslrootcert=${CA}`, "issuer checked, name not"],
      ["sslmode=require", "nothing checked"],
    ])("%s: the certificate's names are evidence, with what was checked", async (query, checked) => {
      const of = await told(url("localhost", query));
      expect(of["TLS certificate"]).toMatch(
        /^DNS:db\.shop\.example, DNS:localhost, issued by Test Authority, until \d{4}-\d\d-\d\d; /,
      );
      expect(of["TLS certificate"]).toContain(checked);
      expect(of["TLS"]).toMatch(/^TLSv1\.[23]/);
    });

    test("without TLS there is no certificate to tell of", async () => {
      const of = await told(url("localhost", "sslmode=disable"));
      expect(of["TLS certificate"]).toBeUndefined();
      expect(of["TLS"]).toMatch(/^none/);
    });

    test.each([
      ["another authority", "localhost", `sslmode=verify-full&sslrootcert=${OTHER}`],
      ["another authority, name not asked", "localhost", `sslmode=verify-ca&sslrootcert=${OTHER}`],
      ["another authority, named beside require", "localhost", `sslmode=require&sslrootcert=${OTHER}`],
      ["a name that is not the certificate's", "127.0.0.1", `sslmode=verify-full&sslrootcert=${CA}`],
      ["no authority named for a private one", "localhost", "sslmode=verify-full"],
      ["the public ones for a private one", "localhost", "sslrootcert=system"],
    ])("%s is refused (39)", async (_name, host, query) => {
      expect((await refused(url(host, query)))[0]).toBe("ERR_TARGET_UNREACHABLE");
    });

    test("a certificate that signs itself is refused, with what to name; named, it is its own authority", async () => {
      await server.show("self");
      try {
        const [code, what, next] = await refused(url("localhost", "sslmode=verify-full"));
        expect([code, what]).toEqual(["ERR_TARGET_UNREACHABLE", expect.stringContaining("self-signed")]);
        expect(next).toContain("sslrootcert=FILE");
        expect((await refused(url("localhost", `sslmode=verify-full&sslrootcert=${CA}`)))[0]).toBe(code);
        const own = encodeURIComponent(join(CERTIFICATES, "self.crt"));
        const of = await told(url("localhost", `sslmode=verify-full&sslrootcert=${own}`));
        expect(of["TLS certificate"]).toContain("DNS:localhost");
      } finally {
        await server.show("server");
      }
    });

    test("the public authorities are not believed without the name", async () => {
      const [code, what] = await refused(url("localhost", "sslmode=require&sslrootcert=system"));
      expect([code, what]).toEqual([
        "ERR_TARGET_UNSUPPORTED",
        "sslrootcert=system wants sslmode=verify-full",
      ]);
    });
  });

  describe("with a password", () => {
    const socket = (): string => `postgres://ada@/shop?host=${server.folder}&port=${server.port}`;
    const keep = (line: string, mode = 0o600): string => {
      const file = join(home, ".pgpass");
      writeFileSync(file, `# ours\n*:1:*:*:wrong\n${line}\n`);
      chmodSync(file, mode);
      return file;
    };

    test.each<[string, () => string, () => string]>([
      ["of this very database", wanted, () => `127.0.0.1:${server.port}:shop:ada:${IN_A_FILE}`],
      ["of any database", wanted, () => `*:*:*:ada:${IN_A_FILE}:and what libpq leaves out`],
      ["of a socket's folder", socket, () => `${server.folder}:${server.port}:*:*:${IN_A_FILE}`],
    ])("from .pgpass: a line %s, which is evidence", async (_, url, line) => {
      const file = keep(line());
      expect((await told(url()))["connection"]).toBe(`password from ${file}:3`);
    });

    test("from the file that PGPASSFILE names", async () => {
      const file = join(home, "elsewhere");
      writeFileSync(file, `*:*:*:*:${IN_A_FILE}\n`, { mode: 0o600 });
      expect((await told(wanted(), { PGPASSFILE: file }))["connection"]).toBe(`password from ${file}:1`);
    });

    test("from a service, and from the variables", async () => {
      const file = join(home, ".pg_service.conf");
      writeFileSync(
        file,
        `[shop]\nhost=127.0.0.1\nport=${server.port}\ndbname=shop\nuser=ada\npassword=${PASSWORD}\n`,
      );
      const from = `service shop of ${file}`;
      expect((await told("postgres://?service=shop"))["connection"]).toBe(
        ["host", "port", "user", "dbname", "password"].map((part) => `${part} from ${from}`).join(", "),
      );
      const env = {
        PGHOST: server.folder,
        PGPORT: String(server.port),
        PGUSER: "ada",
        PGDATABASE: "shop",
        PGPASSWORD: PASSWORD,
      };
      expect((await told("postgres://", env))["connection"]).toBe(
        "host from PGHOST, port from PGPORT, user from PGUSER, dbname from PGDATABASE, password from PGPASSWORD",
      );
    });

    test("that is wrong, missing, or in a file that others may read is refused (39), and it is said where it was looked for", async () => {
      const [wrong, reason] = await refused(wanted(), { PGPASSWORD: "sesame-18" });
      expect([wrong, reason]).toEqual([
        "ERR_TARGET_UNREACHABLE",
        'password authentication failed for user "ada"',
      ]);
      const none = async (): Promise<string> => {
        const [code, what, next] = await refused(wanted());
        expect([code, next]).toEqual([
          "ERR_TARGET_UNREACHABLE",
          expect.stringContaining("~/.pgpass (chmod 600)"),
        ]);
        return what;
      };
      expect(await none()).toContain(`there is no ${home}/.pgpass`);
      keep(`127.0.0.1:${server.port}:other:ada:${IN_A_FILE}`);
      expect(await none()).toContain("is for this host, port, database and user");
      const file = keep(`*:*:*:*:${IN_A_FILE}`, 0o640);
      expect(await none()).toContain(
        `${file} is not used, because others than its owner may read it (mode 0640)`,
      );
    });

    test.each([
      ["PGHOSTADDR", "10.0.0.1"],
      ["PGOPTIONS", "-c search_path=elsewhere"],
      ["PGREQUIREPEER", "postgres"],
      ["PGCHANNELBINDING", "require"],
      ["PGTARGETSESSIONATTRS", "read-write"],
    ])("%s, which other clients would obey, is refused by name and not left aside", async (name, value) => {
      const [code, what] = await refused(wanted(), { PGPASSWORD: PASSWORD, [name]: value });
      expect([code, what]).toEqual([
        "ERR_TARGET_UNSUPPORTED",
        expect.stringContaining(`variable ${name} is set`),
      ]);
    });
  });

  const noDump = folderOf("pg_dump") === null ? "pg_dump is not on this machine" : null;
  if (noDump !== null && process.env["REQUIRE_SERVERS"] === "1") throw new Error(noDump);
  (noDump === null ? test : test.skip)(
    `no file, screen, document, event or process list has it: plan, approval, a dump, apply${noDump === null ? "" : `: ${noDump}`}`,
    async () => {
      await server.exec(
        server.url("shop"),
        "ALTER SCHEMA public OWNER TO ada",
        "CREATE TABLE orders (id integer PRIMARY KEY, note text)",
        "ALTER TABLE orders OWNER TO ada",
        "INSERT INTO orders SELECT i, 'x' FROM generate_series(1, 9) i",
      );
      const project = makePostgresProject(wanted(), {
        configure: (made) => {
          mkdirSync(made.path("home"));
          writeFileSync(made.path("home/.pgpass"), `*:*:shop:*:${IN_A_FILE}\n`, { mode: 0o600 });
        },
      });
      try {
        const folder = watchedPrograms(project.path("programs"));
        const env = { PATH: `${folder}:${process.env["PATH"] ?? ""}` };
        const said: string[] = [];
        const run = (...args: readonly string[]): Ran => {
          const ran = project.run(args, { env });
          said.push(ran.stdout, ran.stderr);
          return ran;
        };
        project.write("jobs/one.sql", "UPDATE orders SET note = 'y' WHERE id = 1");
        const planning = ["plan", "jobs/one.sql", "--on", "shop-prod", "--snapshot", "database"];
        const planned = run(...planning, "--key", "keys/dana", "--json");
        const plan = String(JSON.parse(planned.stdout).result.plan);
        project.approve(plan);
        const applied = run(
          "apply",
          plan,
          "--confirm",
          "shop-prod",
          "--events",
          project.path("events"),
          "--json",
        );
        expect([planned.stderr, applied.status]).toEqual(["", 0]);
        run("show", plan);
        run("env", "check", "shop-prod");
        run("doctor");
        run("log", "show", "1");

        const variables = project
          .read("programs/variables")
          .split("\n")
          .filter((line) => line !== "");
        expect(variables.map((line) => line.replace(/=.*/, "")).sort()).toEqual([
          "LC_ALL",
          "PATH",
          "PGAPPNAME",
          "PGCLIENTENCODING",
          "PGCONNECT_TIMEOUT",
          "PGDATABASE",
          "PGGSSENCMODE",
          "PGHOST",
          "PGPASSWORD",
          "PGPORT",
          "PGSSLMODE",
          "PGUSER",
          "PWD",
        ]);
        expect(variables.filter((line) => line.includes("sesame"))).toEqual([`PGPASSWORD=${PASSWORD}`]);
        const lines = project.read("programs/lines");
        expect(lines).toContain("--format=custom");
        expect(lines).not.toContain("sesame");
        expect(said.join()).not.toContain("sesame");
        const holding = spawnSync("grep", ["-rl", "sesame", project.dir], { encoding: "utf8" }).stdout;
        expect(holding.trim().split("\n").sort()).toEqual(
          ["home/.pgpass", "programs/variables"].map((f) => project.path(f)),
        );
      } finally {
        project.close();
      }
    },
  );
});

/** A `pg_dump` that notes every process's arguments and its own variables. */
function watchedPrograms(folder: string): string {
  const notes = `cat /proc/[0-9]*/cmdline >'${folder}/lines' 2>/dev/null
tr '\\0' '\\n' </proc/$$/environ >'${folder}/variables'`;
  return wrapPrograms(folder, { pg_dump: notes }, ["pg_dump"]);
}
