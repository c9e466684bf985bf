/**
 * A holdpoint project of its own in a temporary folder, driven through the real binary: an SQLite database, two
 * people with SSH keys, a pinned target. Nothing of the machine's own keys, agent or configuration reaches it.
 */
import { spawn, spawnSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import Database from "better-sqlite3";
import { mayStay, runResident } from "./resident.js";

/** The binary under test. */
export const BIN =
  process.env["HOLDPOINT_TEST_BIN"] ?? resolve(import.meta.dirname, "../../../bin/holdpoint.js");

/** How a command ended. */
export interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The one document of `--json`. */
export interface Document {
  readonly schema: string;
  readonly ok: boolean;
  readonly exit: { readonly code: number; readonly name: string };
  readonly target_changed: string;
  readonly warnings: readonly string[];
  // The shape of `result` is the command's; tests read the fields that the contract names.
  readonly result: Record<string, never> & { readonly [key: string]: unknown };
  readonly error: {
    readonly code: string;
    readonly what: string;
    readonly why: string | null;
    readonly state: string;
  } | null;
}

/** What a command is run with. */
export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  /** For a command that gets signals, or sends them to the process it runs in. */
  readonly ownProcess?: boolean;
}

/** A project to run commands in. */
export interface TestProject {
  readonly dir: string;
  readonly database: string;
  readonly run: (args: readonly string[], options?: RunOptions) => Ran;
  readonly start: (args: readonly string[]) => Promise<Ran>;
  /** Runs with `--json` and gives the document with the exit code. */
  readonly json: (args: readonly string[], options?: RunOptions) => Document;
  readonly write: (path: string, content: string) => string;
  readonly read: (path: string) => string;
  readonly path: (path: string) => string;
  /** Plans an SQL text and gives the plan's id; refusals fail the test. */
  readonly plan: (sql: string, more?: readonly string[]) => string;
  /** Approves through prepare, `ssh-keygen -Y sign` and prepared; gives the token. */
  readonly approve: (plan: string, person?: string, more?: readonly string[]) => string;
  /** Runs SQL on the target behind holdpoint's back. */
  readonly raw: (sql: string) => void;
  readonly rows: (sql: string) => unknown[];
  /** Every row of every table but holdpoint's own, sorted, with the schema: what "equal" means. */
  readonly dump: () => string;
  readonly close: () => void;
}

/** How a project is set up. */
export interface ProjectOptions {
  readonly schema?: string;
  readonly environment?: "production" | "staging" | "development";
  readonly target?: string;
  readonly people?: readonly string[];
  readonly pin?: boolean;
  readonly journal?: "wal" | "delete";
}

/** A small shop: rows to delete, to update, and a cascade. */
export const SHOP = `
  CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT);
  CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    note TEXT,
    total REAL NOT NULL
  );
  INSERT INTO customers SELECT value, 'customer ' || value, 'c' || value || '@shop.example'
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 100) SELECT value FROM n);
  INSERT INTO orders SELECT value, 1 + (value - 1) % 100, CASE value % 3 WHEN 0 THEN 'paid' ELSE 'pending' END, NULL, value * 1.5
    FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 400) SELECT value FROM n);
`;

/** Makes the project; close it in `finally` or `afterEach`. */
export function makeProject(options: ProjectOptions = {}): TestProject {
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
  const target = options.target ?? "shop-prod";
  const people = options.people ?? ["dana", "ravi"];
  const database = join(dir, "shop.db");
  mkdirSync(join(dir, "keys"));
  for (const person of people) makeKey(join(dir, "keys", person), person);
  const db = new Database(database);
  db.pragma(`journal_mode = ${options.journal ?? "wal"}`);
  db.exec(options.schema ?? SHOP);
  db.close();

  const project = projectAt(dir, database, target);
  const init = [
    "init",
    "--target",
    target,
    "--url",
    "sqlite:shop.db",
    "--environment",
    options.environment ?? "production",
    ...people.flatMap((p) => ["--person", `${p}=keys/${p}.pub`]),
  ];
  expectOk(project.run(init), init);
  if (options.pin ?? true) {
    const pin = ["env", "pin", target, "--confirm", target];
    expectOk(project.run(pin), pin);
  }
  return project;
}

/** A throw-away ed25519 key without a passphrase, or with one. */
export function makeKey(path: string, comment: string, passphrase = ""): void {
  const made = spawnSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", path]);
  if (made.status !== 0) throw new Error(`ssh-keygen: ${String(made.stderr)}`);
}

/** A project over an existing folder, e.g. a copy. */
export function projectAt(dir: string, database: string, target: string): TestProject {
  const envOf = (more: Readonly<Record<string, string>> = {}): Record<string, string> => ({
    PATH: process.env["PATH"] ?? "",
    HOME: join(dir, "home"),
    TZ: "UTC",
    LANG: "C.UTF-8",
    ...more,
  });
  const run: TestProject["run"] = (args, options = {}) => {
    const command = { cwd: dir, args, env: envOf(options.env), input: options.input ?? "" };
    if (options.ownProcess !== true && mayStay(command)) return runResident(command);
    const done = spawnSync(process.execPath, [BIN, ...args], {
      cwd: dir,
      encoding: "utf8",
      env: command.env,
      maxBuffer: 256 * 1024 * 1024,
      input: command.input,
    });
    return { status: done.status ?? -1, stdout: done.stdout, stderr: done.stderr };
  };
  const json: TestProject["json"] = (args, options) => {
    const { stdout, stderr, status } = run([...args, "--json"], options);
    try {
      const document = JSON.parse(stdout) as Document;
      if (document.exit.code !== status)
        throw new Error(`exit ${status}, document says ${document.exit.code}`);
      if (!saysItsEnd(status, stderr, document.error?.code))
        throw new Error(`exit ${status} without its line on stderr`);
      return document;
    } catch (e) {
      throw new Error(`${args.join(" ")} gave no single document: ${stdout}\n${stderr}`, { cause: e });
    }
  };
  const write: TestProject["write"] = (path, content) => {
    writeFileSync(join(dir, path), content);
    return path;
  };
  return {
    dir,
    database,
    run,
    json,
    write,
    start: (args) =>
      new Promise((done) => {
        const child = spawn(process.execPath, [BIN, ...args], {
          cwd: dir,
          env: envOf(),
          stdio: ["ignore", "pipe", "pipe"],
        });
        let stdout = "";
        let stderr = "";
        child.stdout.on("data", (c: Buffer) => void (stdout += c.toString()));
        child.stderr.on("data", (c: Buffer) => void (stderr += c.toString()));
        child.on("close", (status) => done({ status: status ?? -1, stdout, stderr }));
      }),
    read: (path) => readFileSync(join(dir, path), "utf8"),
    path: (path) => join(dir, path),
    plan: (sql, more = []) => {
      const file = write(`jobs/job-${nextNumber()}.sql`, sql);
      const made = json(["plan", file, "--on", target, "--key", "keys/dana", ...more]);
      if (!made.ok) throw new Error(`plan: ${JSON.stringify(made.error)}`);
      return String(made.result["plan"]);
    },
    approve: (plan, person = "ravi", more = []) => approve({ dir, run, json }, plan, person, more),
    raw: (sql) => {
      const db = new Database(database);
      try {
        db.pragma("foreign_keys = ON");
        db.exec(sql);
      } finally {
        db.close();
      }
    },
    rows: (sql) => {
      const db = new Database(database, { readonly: true });
      try {
        return db.prepare(sql).all();
      } finally {
        db.close();
      }
    },
    dump: () => dumpOf(database),
    close: () => rmSync(dir, { recursive: true, force: true }),
  };
}

/**
 * Whether stderr says beside a document how the command ended: nothing needs saying at 0; else its last line names the
 * error, or the exit code where there is none, and whether anything was written.
 */
export function saysItsEnd(status: number, stderr: string, code: string | undefined): boolean {
  if (status === 0) return true;
  const last = stderr.trimEnd().split("\n").at(-1) ?? "";
  const written =
    /: (.* )?(Nothing was|THE TARGET WAS CHANGED\.|It is not known whether anything was written)/;
  return last.startsWith(code === undefined ? `exit ${status} (` : `${code}: `) && written.test(last);
}

/**
 * The same checkout on another person's machine: configuration, policies, people and a plan file, and nothing of the
 * store. The target's address leads nowhere there, unless `database` says where it can be read.
 */
export function checkoutOf(project: TestProject, planFile: string, database?: string): TestProject {
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-elsewhere-"));
  for (const part of ["holdpoint.yaml", "policies", "people", "keys", ".gitignore", planFile])
    cpSync(join(project.dir, part), join(dir, part), { recursive: true });
  const there = projectAt(dir, database ?? join(dir, "shop.db"), "shop-prod");
  if (database !== undefined)
    there.write(
      "holdpoint.yaml",
      there.read("holdpoint.yaml").replace("sqlite:shop.db", `sqlite:${database}`),
    );
  return there;
}

let counter = 0;
function nextNumber(): number {
  counter += 1;
  return counter;
}

function approve(
  project: Pick<TestProject, "dir" | "run" | "json">,
  plan: string,
  person: string,
  more: readonly string[],
): string {
  const file = `approval-${nextNumber()}.txt`;
  const prepare = ["approve", plan, "--prepare", file, "--as", person, ...more];
  expectOk(project.run(prepare), prepare);
  sign(join(project.dir, "keys", person), "holdpoint-approval", join(project.dir, file));
  const taken = project.json(["approve", plan, "--prepared", file, "--signature", `${file}.sig`]);
  if (!taken.ok) throw new Error(`approve: ${JSON.stringify(taken.error)}`);
  return String(taken.result["token"]);
}

/** `ssh-keygen -Y sign`: writes `FILE.sig`. */
export function sign(key: string, namespace: string, file: string): void {
  const done = spawnSync("ssh-keygen", ["-Y", "sign", "-n", namespace, "-f", key, file], {
    encoding: "utf8",
  });
  if (done.status !== 0) throw new Error(`ssh-keygen: ${done.stderr}`);
}

/** Schema and rows, sorted, holdpoint's own tables left out; values with their type. */
export function dumpOf(database: string): string {
  const db = new Database(database, { readonly: true });
  try {
    db.defaultSafeIntegers(true);
    const objects = db
      .prepare<[], { type: string; name: string; tbl_name: string; sql: string | null }>(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE tbl_name NOT LIKE 'holdpoint\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite_stat%' ORDER BY type, name",
      )
      .all();
    const lines = objects.map((o) => `${o.type} ${o.name}: ${o.sql ?? ""}`);
    for (const { type, name } of objects) {
      if (type !== "table") continue;
      const quoted = `"${name.replaceAll('"', '""')}"`;
      const columns = db
        .prepare<[string], { name: string }>("SELECT name FROM pragma_table_info(?)")
        .all(name)
        .map((c) => `"${c.name.replaceAll('"', '""')}"`);
      const cells = columns.map((c) => `typeof(${c}) || ':' || quote(${c})`).join(" || ', ' || ");
      const rows = db.prepare<[], string>(`SELECT ${cells} FROM ${quoted}`).pluck().all();
      lines.push(...rows.map((r) => `${name}: ${r}`).sort());
    }
    return lines.join("\n");
  } finally {
    db.close();
  }
}

/** The bytes of the database file and its side files: what "to the byte" means. */
export function bytesOf(database: string): Buffer {
  const parts = [database, `${database}-journal`].filter((p) => existsSync(p)).map((p) => readFileSync(p));
  return Buffer.concat(parts);
}

/** A copy of the database in another place, made while nobody writes. */
export function copyDatabase(from: string, to: string): void {
  for (const suffix of ["", "-wal"]) if (existsSync(from + suffix)) copyFileSync(from + suffix, to + suffix);
}

function expectOk(ran: Ran, args: readonly string[]): void {
  if (ran.status !== 0)
    throw new Error(`${args.join(" ")} ended with ${ran.status}\n${ran.stdout}${ran.stderr}`);
}
