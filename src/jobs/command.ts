/**
 * Command jobs: any command line, on a private copy of the database. What is pinned by its bytes is the file
 * that holds the job's code: the program when it is named by a path, and the script when the program is an
 * interpreter (`bash cleanup.sh`). It runs from a private copy. Everything else of the command
 * line is pinned by its text.
 */
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { canonical } from "../base/canonical.js";
import { type Digest, digestOf } from "../base/digest.js";
import { codeOf, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import type { RunnableJob } from "../target/target.js";
import { type ChildSetting, runChild, searchPath, silent } from "./child.js";
import { databaseVariables } from "./module.js";
import type { Bound } from "./parameters.js";
import { pinFile, type PinnedFile, privateCopy, requireUnchanged } from "./pinned-file.js";

/** A command that was read and copied, not yet run. */
export interface PreparedCommand {
  /** Of the pinned file; of the argument list's canonical form when no file is pinned. */
  readonly source: Digest;
  readonly pinned: PinnedFile | null;
  readonly runnable: (bound: Bound) => RunnableJob;
}

/** Programs that run the code in a file that they are given. */
const INTERPRETERS =
  /^(?:sh|bash|dash|ksh|zsh|fish|node|deno|bun|python[\d.]*|ruby|perl|php|lua|tclsh|Rscript)$/;

/**
 * Finds the program of a command line and copies the file that is pinned.
 * @param argv the program and its arguments, as typed or configured.
 * @param folder what relative paths in `argv` are relative to.
 * @throws UsageError ERR_JOB_UNKNOWN when there is no such program or file.
 */
export async function prepareCommand(
  argv: readonly string[],
  folder: string,
  title: string,
  timeoutSeconds: number,
  setting: ChildSetting,
): Promise<PreparedCommand> {
  const [program = ""] = argv;
  if (program.trim() === "")
    throw unknown("the command has no program", "write holdpoint plan --on TARGET -- COMMAND");
  const interpreter = INTERPRETERS.test(basename(program));
  const found = program.includes("/") ? null : await onPath(program, setting);
  const place = interpreter ? await scriptPlace(argv, folder) : found === null ? 0 : null;
  const pinned = place === null ? null : await pinFile(resolve(folder, argv[place] ?? ""), argv[place] ?? "");
  const copy = pinned === null ? null : await privateCopy(pinned, setting.scratch, basename(pinned.path));
  const words = argv.map((word, i) => (i === place && copy !== null ? copy : word));
  const runnable = (bound: Bound): RunnableJob => ({
    kind: "program",
    run: async ({ path, url, quiet }) => {
      if (pinned !== null && copy !== null) await requireUnchanged(copy, pinned);
      const variables = { ...databaseVariables(path, url), ...parameterVariables(bound) };
      const values = new Map([
        ["database", path],
        ["database_url", url],
        ...bound.map((p) => [p.name, p.text] as const),
      ]);
      // The copy's own path has no placeholders to fill in.
      const filled = words.map((word) => (word === copy ? word : filledIn(word, values)));
      // A copy of an interpreter would not find its own libraries: it runs from its place.
      const file = found ?? (interpreter ? resolve(folder, program) : (filled[0] ?? ""));
      await runChild(
        { title, file, arguments: filled.slice(1), variables, timeoutSeconds },
        quiet === true ? silent(setting) : setting,
      );
    },
  });
  return { source: pinned?.digest ?? digestOf(canonical([...argv])), pinned, runnable };
}

/** `{database}`, `{database_url}` and `{parameter}` in one pass; what names nothing stays as it is. */
function filledIn(word: string, values: ReadonlyMap<string, string>): string {
  return word.replaceAll(/\{(\w+)\}/g, (whole, name: string) => values.get(name) ?? whole);
}

function parameterVariables(bound: Bound): Readonly<Record<string, string>> {
  return Object.fromEntries(bound.map((p) => [`HOLDPOINT_PARAM_${p.name}`, p.text]));
}

/**
 * Where in `argv` an interpreter's script stands: the first argument that is no option and names a file. Null
 * when there is none: the code of `bash -c '…'` stands in the argument list, which is pinned by its text.
 */
async function scriptPlace(argv: readonly string[], folder: string): Promise<number | null> {
  for (const [i, word] of argv.entries()) {
    if (i > 0 && !word.startsWith("-") && (await isFile(resolve(folder, word)))) return i;
  }
  return null;
}

async function onPath(program: string, setting: ChildSetting): Promise<string> {
  for (const folder of searchPath(setting.environment)) {
    const candidate = join(folder, program);
    if ((await isFile(candidate)) && (await isExecutable(candidate))) return candidate;
  }
  const here = nearest(program, ["bash", "sh", "node", "python3", "sqlite3", "psql"]);
  const guess = here === undefined ? "" : `; did you mean ${here}?`;
  throw unknown(
    `there is no program ${program} on PATH`,
    `a file of yours is named by a path, as in ./${program}${guess}`,
  );
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (e) {
    if (codeOf(e) === undefined) throw e;
    return false;
  }
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    // Not ours to run, for whatever reason: PATH is searched further, as a shell does.
    return false;
  }
}

function unknown(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_JOB_UNKNOWN", message, why });
}
