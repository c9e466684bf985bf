/**
 * From what somebody typed to a job that can be rehearsed: a name of the configuration, a file, or a command
 * line. Its file is read once; digest, parameters and run all come from those bytes.
 */
import { basename, resolve } from "node:path";
import type { Digest } from "../base/digest.js";
import { UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import type { Direction } from "../changeset/direction.js";
import type { Again, RunnableJob } from "../target/target.js";
import { prepareCommand } from "./command.js";
import { type ModuleSetting, prepareModule } from "./module.js";
import { bindParameters, bindUndeclared, type Bound, type ParameterSpecs, textForms } from "./parameters.js";
import { pinFile, type PinnedFile, swappedSince } from "./pinned-file.js";
import { loadSqlJob, type SqlEngine } from "./sql-file.js";

export type { Direction } from "../changeset/direction.js";

/** Declared counts: table → operation → `[least, most]`. */
export type Expectation = Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>>;

/** What a job is made of. */
export type JobSource =
  | { readonly kind: "sql" | "module"; readonly path: string; readonly shown: string }
  | { readonly kind: "command"; readonly argv: readonly string[]; readonly folder: string };

/** A job of the configuration. */
export interface JobDeclaration {
  readonly name: string;
  readonly source: JobSource;
  /** Null when nothing was declared; `{}` says that the job takes none. */
  readonly params: ParameterSpecs | null;
  readonly scope: readonly string[] | null;
  readonly expect: Expectation | null;
  /** Which way its updates go; null when nothing was declared. */
  readonly direction: readonly Direction[] | null;
  /** How long a module or command may run. */
  readonly timeoutSeconds: number;
  /** Whether a module or command is run twice; null when nothing was declared. */
  readonly twice: boolean | null;
  /** `holdpoint.yaml:12:3`. */
  readonly at: string;
}

/** The jobs that a configuration declares. */
export interface JobBook {
  /** The configuration's file, for errors. */
  readonly file: string;
  readonly jobs: Readonly<Record<string, JobDeclaration>>;
}

/** What somebody asked to run. */
export type JobRequest =
  | { readonly kind: "job"; readonly job: string }
  | { readonly kind: "command"; readonly argv: readonly string[] };

/** What preparing and running a job needs. */
export interface JobSetting extends ModuleSetting {
  /** What relative paths are relative to: the working directory. Absolute. */
  readonly cwd: string;
}

/** A job, ready to be rehearsed. Its fields stand in the plan's statement as they are. */
export interface PreparedJob {
  /** The declared name; else the file's path as given, or `command:` and the program. Only a declared job has a bare name. */
  readonly name: string;
  readonly kind: "sql" | "module" | "command";
  readonly source: Digest;
  /** The pinned file's path as given; null for a command without one. */
  readonly path: string | null;
  readonly parameters: Readonly<Record<string, string>>;
  /** The whole command line, as typed or configured; empty for the other kinds. */
  readonly arguments: readonly string[];
  readonly scope: readonly string[] | null;
  readonly expect: Expectation | null;
  readonly direction: readonly Direction[] | null;
  /** False when some UPDATE or DELETE of an SQL job has no WHERE; true when that is not known. */
  readonly selective: boolean;
  readonly runnable: RunnableJob;
  /** Whether its rehearsal runs it twice; statements of SQL are always, where they can differ. */
  readonly again: Again;
  /** After the rehearsal: whether the file was replaced meanwhile, in words. What ran is what was read. */
  readonly swapped: () => Promise<string | null>;
}

/** How long a module or command may run when nothing is declared. */
export const DEFAULT_TIMEOUT_SECONDS = 15 * 60;

/**
 * Finds, reads, checks and binds a job. Nothing of a module or command runs yet, but for the top level of a
 * module that declares its own parameters.
 * @param given the arguments of `--set`.
 * @throws UsageError ERR_JOB_UNKNOWN, ERR_JOB_INVALID, ERR_JOB_STATEMENT, ERR_JOB_PARAMETER, ERR_JOB_FAILED.
 */
export async function resolveJob(
  book: JobBook,
  request: JobRequest,
  given: readonly string[],
  setting: JobSetting,
): Promise<PreparedJob> {
  const declaration =
    request.kind === "job" ? declared(book, request.job, setting.cwd) : bareCommand(request.argv, setting);
  const { source } = declaration;
  switch (source.kind) {
    case "sql":
      return sqlJob(declaration, await pinFile(source.path, source.shown), given, setting.engine ?? "sqlite");
    case "module":
      return await moduleJob(declaration, await pinFile(source.path, source.shown), given, setting);
    case "command":
      return await commandJob(declaration, source, given, setting);
  }
}

// --- which job -------------------------------------------------------------------------------------

function declared(book: JobBook, job: string, cwd: string): JobDeclaration {
  if (job.trim() === "") throw unknownJob(book, job, "a job is needed: empty never means all");
  if (Object.hasOwn(book.jobs, job)) return book.jobs[job] ?? bareFile(job, cwd);
  if (kindOfFile(job) === null)
    throw unknownJob(book, job, "it is no declared name, and no file .sql, .js, .mjs, .ts or .mts");
  // A declared job stays one when it is named by its file: its scope, expectation and parameters hold.
  const path = resolve(cwd, job);
  const same = Object.values(book.jobs).filter((d) => d.source.kind !== "command" && d.source.path === path);
  const [only, second] = same;
  if (only !== undefined && second !== undefined) {
    const names = same.map((d) => d.name).join(", ");
    throw unknownJob(book, job, `${names} are declared with this file: say which by its name`);
  }
  return only ?? bareFile(job, cwd);
}

function bareFile(job: string, cwd: string): JobDeclaration {
  return {
    ...UNDECLARED,
    name: job,
    source: { kind: kindOfFile(job) ?? "sql", path: resolve(cwd, job), shown: job },
  };
}

function bareCommand(argv: readonly string[], setting: JobSetting): JobDeclaration {
  return {
    ...UNDECLARED,
    name: `command:${basename(argv[0] ?? "")}`,
    source: { kind: "command", argv, folder: setting.cwd },
  };
}

const UNDECLARED = {
  params: null,
  scope: null,
  expect: null,
  direction: null,
  timeoutSeconds: DEFAULT_TIMEOUT_SECONDS,
  twice: null,
  at: "command line",
} as const;

/** What a file is run as, by its ending; null for any other. */
export function kindOfFile(path: string): "sql" | "module" | null {
  if (path.endsWith(".sql")) return "sql";
  return /\.(?:m?js|m?ts)$/.test(path) ? "module" : null;
}

function unknownJob(book: JobBook, job: string, why: string): UsageError {
  const names = Object.keys(book.jobs);
  const guess = nearest(job, names);
  const has =
    names.length === 0 ? `${book.file} declares no jobs` : `${book.file} declares ${names.join(", ")}`;
  return new UsageError({
    code: "ERR_JOB_UNKNOWN",
    message: `there is no job ${JSON.stringify(job)}`,
    why: `${why}; ${has}${guess === undefined ? "" : `; did you mean ${guess}?`}`,
  });
}

// --- each kind -------------------------------------------------------------------------------------

function sqlJob(
  declaration: JobDeclaration,
  file: PinnedFile,
  given: readonly string[],
  engine: SqlEngine,
): PreparedJob {
  const facts = { name: declaration.name, file: file.shown, specs: declaration.params, given, engine };
  const { statements, source, selective, bound } = loadSqlJob(file.bytes, facts);
  return prepared(declaration, file, bound, {
    kind: "sql",
    source,
    selective,
    runnable: { kind: "sql", statements },
  });
}

async function moduleJob(
  declaration: JobDeclaration,
  file: PinnedFile,
  given: readonly string[],
  setting: JobSetting,
): Promise<PreparedJob> {
  const { name, params, timeoutSeconds } = declaration;
  const module = await prepareModule(file, `job ${name}`, timeoutSeconds, setting);
  const own = await module.declaredParams();
  if (own !== null && params !== null) throw declaredTwice(declaration, file);
  const bound = bindParameters(own ?? params ?? {}, given, name);
  const source = file.digest;
  return prepared(declaration, file, bound, {
    kind: "module",
    source,
    selective: true,
    runnable: module.runnable(bound),
  });
}

async function commandJob(
  declaration: JobDeclaration,
  { argv, folder }: Extract<JobSource, { readonly kind: "command" }>,
  given: readonly string[],
  setting: JobSetting,
): Promise<PreparedJob> {
  const { name, params, timeoutSeconds } = declaration;
  const command = await prepareCommand(argv, folder, `job ${name}`, timeoutSeconds, setting);
  const bound = params === null ? bindUndeclared(given, name) : bindParameters(params, given, name);
  const { source, pinned } = command;
  return {
    ...prepared(declaration, pinned, bound, {
      kind: "command",
      source,
      selective: true,
      runnable: command.runnable(bound),
    }),
    arguments: argv,
  };
}

function prepared(
  declaration: JobDeclaration,
  file: PinnedFile | null,
  bound: Bound,
  facts: Pick<PreparedJob, "kind" | "source" | "selective" | "runnable">,
): PreparedJob {
  return {
    name: declaration.name,
    path: file?.shown ?? null,
    parameters: textForms(bound),
    arguments: [],
    scope: declaration.scope,
    expect: declaration.expect,
    direction: declaration.direction,
    again: againOf(declaration.twice, facts.kind),
    ...facts,
    swapped: async () => (file === null ? null : await swappedSince(file)),
  };
}

/**
 * A module does its work in a database that is thrown away. A command line may send mail or move a file: nobody expects
 * it to do that twice.
 */
function againOf(twice: boolean | null, kind: PreparedJob["kind"]): Again {
  if (twice !== null) return twice ? "always" : "never";
  return kind === "command" ? "never" : "if-quick";
}

function declaredTwice(declaration: JobDeclaration, file: PinnedFile): UsageError {
  return new UsageError({
    code: "ERR_JOB_INVALID",
    message: `the parameters of ${declaration.name} are declared twice`,
    why: `once at ${declaration.at} under params, and once in ${file.shown}: keep one`,
  });
}
