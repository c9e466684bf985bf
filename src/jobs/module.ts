/**
 * Module jobs: `export default` of an async function, or of `{ params, async run({ db, params, log }) }`, in a
 * JavaScript (`.js`, `.mjs`) or TypeScript (`.ts`, `.mts`) file. A module is one file: it may import what Node
 * has built in and nothing beside it, because only its own bytes are pinned.
 *
 * TypeScript: Node 22.18 and 24 take the types off themselves. On an older Node the package `esbuild` does it,
 * found from the job's folder or from holdpoint's; without it a `.ts` job is refused before anything runs.
 */
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { serialize } from "node:v8";
import { codeOf, UsageError } from "../base/errors.js";
import type { AnswerJob } from "../target/job-questions.js";
import type { RunnableJob } from "../target/target.js";
import { type ChildSetting, runChild, silent } from "./child.js";
import type { ModuleTask } from "./module-host.js";
import {
  type Bound,
  type BoundParameter,
  isParameterName,
  isSpecProblem,
  parameterSpec,
  type ParameterSpec,
  type ParameterSpecs,
} from "./parameters.js";
import { type PinnedFile, privateCopy, requireUnchanged } from "./pinned-file.js";
import type { SqlEngine } from "./sql-file.js";

/** What running a module needs beside a child's setting. */
export interface ModuleSetting extends ChildSetting {
  /** The Node that runs it, `process.execPath`. */
  readonly node: string;
  /** URL of the adapter's `job-connection.js`, and the connection settings of the target. */
  readonly connection: { readonly connector: string; readonly settings: Readonly<Record<string, string>> };
  /** The engine whose SQL the job has; SQLite when absent. */
  readonly engine?: SqlEngine;
  /** Files beside whose packages `esbuild` is looked for; the job's file and holdpoint itself when absent. */
  readonly esbuildFrom?: readonly string[];
}

/** A module that was read and copied, not yet run. */
export interface PreparedModule {
  /** What the module itself declares; null when it declares nothing. Runs the module's top level in a child. */
  readonly declaredParams: () => Promise<ParameterSpecs | null>;
  readonly runnable: (bound: Bound) => RunnableJob;
}

/** How long a module may take to say what parameters it has. */
const DESCRIBE_SECONDS = 30;

/**
 * Copies a module to where it will run from.
 * @throws UsageError ERR_JOB_INVALID for a TypeScript file that nothing here can read.
 */
export async function prepareModule(
  file: PinnedFile,
  title: string,
  timeoutSeconds: number,
  setting: ModuleSetting,
): Promise<PreparedModule> {
  const typed = /\.m?ts$/.test(file.path);
  const esbuild = typed
    ? findEsbuild(setting.esbuildFrom ?? [file.path, fileURLToPath(import.meta.url)])
    : null;
  if (typed && esbuild === null && !nodeReadsTypes()) throw cannotReadTypes(file);
  // Always a module, whatever a package.json near the original says.
  const copy = await privateCopy(file, setting.scratch, typed ? "job.mts" : "job.mjs");
  const start = async (
    run: ModuleTask["run"],
    seconds: number,
    child: ModuleSetting,
    answer?: AnswerJob,
  ): Promise<string> => {
    await requireUnchanged(copy, file);
    return await runTask({ module: copy, shown: file.shown, esbuild, run }, title, seconds, child, answer);
  };
  const engine = setting.engine ?? "sqlite";
  return {
    declaredParams: async () => specsOf(await start(null, DESCRIBE_SECONDS, setting), file),
    runnable: (bound) => ({
      kind: "program",
      run: async ({ path, quiet }) => {
        await start(
          { ...setting.connection, engine, database: path, params: nativeOf(bound) },
          timeoutSeconds,
          quiet === true ? silent(setting) : setting,
        );
      },
      converse: async (answer) => {
        const run = { connector: askedPath(), engine, settings: {}, database: "", params: nativeOf(bound) };
        await start(run, timeoutSeconds, setting, answer);
      },
    }),
  };
}

/** Runs the host and returns its answer. */
async function runTask(
  task: Omit<ModuleTask, "answer">,
  title: string,
  timeoutSeconds: number,
  setting: ModuleSetting,
  answer: AnswerJob | undefined,
): Promise<string> {
  const folder = await mkdtemp(join(setting.scratch, "task-"));
  const answerFile = join(folder, "answer.json");
  const taskFile = join(folder, "task");
  await writeFile(taskFile, serialize({ ...task, answer: answerFile } satisfies ModuleTask), { mode: 0o600 });
  const program = {
    title,
    file: setting.node,
    arguments: ["--disable-warning=ExperimentalWarning", hostPath(), taskFile],
    variables: databaseVariables(answer === undefined ? task.run?.database : undefined),
    timeoutSeconds,
  };
  await runChild(program, setting, answer);
  return await readAnswer(answerFile, title);
}

/** The address of the private copy, under the two names that every job finds it by. */
export function databaseVariables(path: string | undefined, url?: string): Readonly<Record<string, string>> {
  return path === undefined
    ? {}
    : { HOLDPOINT_DATABASE_PATH: path, HOLDPOINT_DATABASE_URL: url ?? `sqlite:${path}` };
}

async function readAnswer(path: string, title: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    // Exit status 0 without an answer: the module called process.exit before its transaction was committed.
    if (codeOf(cause) !== "ENOENT") throw cause;
    throw new UsageError({
      code: "ERR_JOB_FAILED",
      message: `${title} ended before its run was over`,
      why: "a module returns from its function, it does not leave the process",
    });
  }
}

function specsOf(answer: string, file: PinnedFile): ParameterSpecs | null {
  const { params } = JSON.parse(answer) as { readonly params: unknown };
  if (params === null) return null;
  if (typeof params !== "object" || Array.isArray(params))
    throw badParams(file, "params wants an object of declarations");
  return Object.fromEntries(Object.entries(params).map(([name, raw]) => [name, specOf(name, raw, file)]));
}

function specOf(name: string, raw: unknown, file: PinnedFile): ParameterSpec {
  if (!isParameterName(name)) throw badParams(file, `${JSON.stringify(name)} is no name of a parameter`);
  const spec = parameterSpec(raw);
  if (!isSpecProblem(spec)) return spec;
  throw badParams(file, `params.${name}${spec.key === null ? "" : `.${spec.key}`} ${spec.problem}`);
}

function badParams(file: PinnedFile, why: string): UsageError {
  return new UsageError({
    code: "ERR_JOB_INVALID",
    message: `${file.shown} declares its parameters wrongly`,
    why,
  });
}

function nativeOf(bound: Bound): Readonly<Record<string, BoundParameter["native"]>> {
  return Object.fromEntries(bound.map((p) => [p.name, p.native]));
}

function askedPath(): string {
  return new URL("./asked-connection.js", import.meta.url).href;
}

function hostPath(): string {
  return fileURLToPath(new URL("./module-child.js", import.meta.url));
}

function nodeReadsTypes(): boolean {
  return "typescript" in process.features && process.features.typescript !== false;
}

function findEsbuild(places: readonly string[]): string | null {
  if (nodeReadsTypes()) return null;
  for (const from of places) {
    try {
      return pathToFileURL(createRequire(from).resolve("esbuild")).href;
    } catch (e) {
      if (codeOf(e) !== "MODULE_NOT_FOUND") throw e;
    }
  }
  return null;
}

function cannotReadTypes(file: PinnedFile): UsageError {
  return new UsageError({
    code: "ERR_JOB_INVALID",
    message: `${file.shown} is TypeScript, and nothing here can read it`,
    why: `this is Node ${process.versions.node}: Node 22.18 and 24 read TypeScript, an older one needs the package esbuild`,
    next: [{ actor: "requester", argv: ["npm", "install", "--save-dev", "esbuild"] }],
  });
}
