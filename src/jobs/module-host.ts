/**
 * The program that runs a module job, in a child of its own (`child.ts`). It is started by `module.ts` with
 * one argument, the path of a task; it loads the private copy of the module, and either writes down what
 * parameters the module declares, or runs it on the private copy of the database in one transaction.
 */
import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { deserialize } from "node:v8";
import { isErrorLike } from "../base/errors.js";
import type { Value } from "../changeset/value.js";
import type { JobConnection, JobConnector, JobRow, JobValues } from "../target/job-connection.js";
import type { BoundParameter } from "./parameters.js";
import { refusalOf, type SqlEngine } from "./sql-file.js";

/** What the host is asked to do. Travels as a file in the form of `v8.serialize`. */
export interface ModuleTask {
  /** The private copy of the module, `.mjs` or `.mts`. */
  readonly module: string;
  /** Its name for people, as given. */
  readonly shown: string;
  /** URL of a package that takes the types off on a Node that does not; null where there is none. */
  readonly esbuild: string | null;
  /** Where the answer goes: its presence says that the task was done to its end. */
  readonly answer: string;
  readonly run: {
    /** URL of the adapter's `job-connection.js`. */
    readonly connector: string;
    readonly engine: SqlEngine;
    readonly database: string;
    readonly settings: Readonly<Record<string, string>>;
    readonly params: Readonly<Record<string, BoundParameter["native"]>>;
  } | null;
}

/** What a value may be when a module binds it. */
export type ModuleValue = Value | boolean;

/** The connection as a module sees it: named parameters only, no transaction words, one open transaction. */
export interface ModuleDatabase {
  readonly all: (sql: string, values?: Readonly<Record<string, ModuleValue>>) => readonly JobRow[];
  readonly get: (sql: string, values?: Readonly<Record<string, ModuleValue>>) => JobRow | undefined;
  readonly iterate: (sql: string, values?: Readonly<Record<string, ModuleValue>>) => Iterable<JobRow>;
  readonly run: (sql: string, values?: Readonly<Record<string, ModuleValue>>) => { readonly changes: number };
  readonly prepare: (sql: string) => {
    readonly all: (values?: Readonly<Record<string, ModuleValue>>) => readonly JobRow[];
    readonly get: (values?: Readonly<Record<string, ModuleValue>>) => JobRow | undefined;
    readonly iterate: (values?: Readonly<Record<string, ModuleValue>>) => Iterable<JobRow>;
    readonly run: (values?: Readonly<Record<string, ModuleValue>>) => { readonly changes: number };
  };
}

/** What a module's function receives. */
export interface ModuleContext {
  readonly db: ModuleDatabase;
  readonly params: Readonly<Record<string, BoundParameter["native"]>>;
  /** Prints a line; it goes to standard error of the command. */
  readonly log: (line: string) => void;
}

interface LoadedModule {
  readonly params: unknown;
  readonly run: (context: ModuleContext) => unknown;
}

/** Guards a connection. Exported for its tests. */
export function guarded(connection: JobConnection, engine: SqlEngine = "sqlite"): ModuleDatabase {
  const checked = (sql: string): string => {
    const why = refusalOf(sql, engine);
    if (why !== null) throw new Error(`this statement cannot stand in a job: ${why}`);
    return sql;
  };
  const prepare: ModuleDatabase["prepare"] = (sql) => {
    checked(sql);
    return {
      all: (values) => connection.all(sql, exact(values)),
      get: (values) => firstOf(connection.iterate(sql, exact(values))),
      iterate: (values) => connection.iterate(sql, exact(values)),
      run: (values) => connection.run(sql, exact(values)),
    };
  };
  return {
    prepare,
    all: (sql, values) => prepare(sql).all(values),
    get: (sql, values) => prepare(sql).get(values),
    iterate: (sql, values) => prepare(sql).iterate(values),
    run: (sql, values) => prepare(sql).run(values),
  };
}

function firstOf(rows: Iterable<JobRow>): JobRow | undefined {
  for (const row of rows) return row;
  return undefined;
}

/** A whole number is bound as an integer, as a person means it, and truth as 1 or 0. A blank is refused. */
function exact(values: Readonly<Record<string, ModuleValue>> = {}): JobValues {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, exactValue(name, value)]));
}

function exactValue(name: string, value: ModuleValue | undefined): Value {
  if (value === undefined) throw new TypeError(`the value of ${name} is undefined: write null for NULL`);
  if (typeof value === "boolean") return value ? 1n : 0n;
  if (typeof value !== "number" || !Number.isInteger(value) || Object.is(value, -0)) return value;
  if (!Number.isSafeInteger(value))
    throw new RangeError(`the value of ${name} is too large for a number: use a bigint`);
  return BigInt(value);
}

/**
 * Does what the task says. What the job throws is printed with the job's own lines of the stack, and ends in
 * exit status 1.
 */
export async function host(taskPath: string): Promise<void> {
  const task = deserialize(await readFile(taskPath)) as ModuleTask;
  try {
    await perform(task);
  } catch (e) {
    // Node prints where a syntax error stands, and only when nobody catches it.
    if (isErrorLike(e) && e.name === "SyntaxError") throw e;
    console.error(ownStack(e, task));
    process.exitCode = 1;
  }
}

function ownStack(e: unknown, task: ModuleTask): string {
  if (!isErrorLike(e)) return `the job threw ${String(e)}`;
  const copy = pathToFileURL(task.module).href;
  const own = (e.stack ?? "")
    .split("\n")
    .filter((line) => line.trimStart().startsWith("at ") && line.includes(copy));
  return [
    `${e.name}: ${e.message}`,
    ...own.map((line) => `  ${line.trim().replaceAll(copy, task.shown)}`),
  ].join("\n");
}

async function perform(task: ModuleTask): Promise<void> {
  const job = await loadModule(task);
  if (task.run !== null) await runModule(job, task.run);
  await writeFile(task.answer, JSON.stringify({ params: job.params ?? null }, jsonValue), { mode: 0o600 });
}

async function runModule(job: LoadedModule, task: NonNullable<ModuleTask["run"]>): Promise<void> {
  const { openJobConnection } = (await import(task.connector)) as {
    readonly openJobConnection: JobConnector;
  };
  const connection = await openJobConnection(task.database, task.settings);
  try {
    connection.begin();
    await job.run({
      db: guarded(connection, task.engine),
      params: task.params,
      log: (line) => console.error(line),
    });
    connection.commit();
  } finally {
    connection.close();
  }
}

async function loadModule(task: ModuleTask): Promise<LoadedModule> {
  const path = task.module.endsWith(".mts") ? await withoutTypes(task) : task.module;
  const loaded = (await import(pathToFileURL(path).href)) as { readonly default?: unknown };
  const job = loaded.default;
  if (typeof job === "function") return { params: undefined, run: job as LoadedModule["run"] };
  if (typeof job === "object" && job !== null && "run" in job && typeof job.run === "function") {
    const run = job.run as LoadedModule["run"];
    return { params: "params" in job ? job.params : undefined, run: (context) => run.call(job, context) };
  }
  throw new TypeError(
    "the module exports no job: it needs `export default` of a function, or of { params, run }",
  );
}

/** Node 22.18 and 24 take the types off themselves; an older one needs esbuild. */
async function withoutTypes(task: ModuleTask): Promise<string> {
  if ("typescript" in process.features && process.features.typescript !== false) return task.module;
  if (task.esbuild === null)
    throw new Error(`Node ${process.version} does not read TypeScript and there is no esbuild`);
  const { transform } = (await import(task.esbuild)) as {
    readonly transform: (
      source: string,
      options: Readonly<Record<string, string>>,
    ) => Promise<{ readonly code: string }>;
  };
  const source = await readFile(task.module, "utf8");
  const { code } = await transform(source, {
    loader: "ts",
    format: "esm",
    target: "es2022",
    sourcefile: task.module,
  });
  const path = `${task.answer}.mjs`;
  await writeFile(path, code, { mode: 0o600 });
  return path;
}

/** Declarations may be written with `30n` and `/^[a-z]+$/`. */
function jsonValue(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  return value instanceof RegExp ? value.source : value;
}
