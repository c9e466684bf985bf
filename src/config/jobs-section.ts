/** The `jobs:` part of holdpoint.yaml: what it may say, and what jobs/ makes of it. */
import { resolve } from "node:path";
import * as z from "zod";
import { parseDuration } from "../base/clock.js";
import {
  DEFAULT_TIMEOUT_SECONDS,
  type Direction,
  type Expectation,
  type JobDeclaration,
  type JobSource,
  kindOfFile,
} from "../jobs/job.js";
import { isParameterName, isSpecProblem, parameterSpec, type ParameterSpec } from "../jobs/parameters.js";
import { plainText } from "./yaml-file.js";

/** A name of a target or job: what is typed to confirm, and stands in statements and file names. */
export function nameSchema(): z.ZodType<string> {
  return z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
    error: "is no name: use letters, digits and . _ -, 64 at most",
  });
}

/** A table or a `table.column`, by its exact name. */
export function tableName(): z.ZodType<string> {
  return plainText().refine((s) => !/[*\u0000-\u001f]/.test(s), { error: "is a pattern: name each table" });
}

/** A duration such as `30s`, as seconds. */
export function durationSchema(): z.ZodType<number> {
  return z.string().transform((text, context) => {
    const seconds = parseDuration(text);
    if (seconds !== undefined) return seconds;
    context.addIssue({ code: "custom", message: "wants a duration like 30s, 15m or 2h" });
    return z.NEVER;
  });
}

/** A command: the program and its arguments. No shell reads it. */
export function commandSchema(): z.ZodType<readonly string[]> {
  return z.array(z.string()).min(1);
}

/** One declared parameter; the rules are those of jobs/parameters.ts. */
const parameter = z.unknown().transform((raw, context): ParameterSpec => {
  const spec = parameterSpec(raw);
  if (!isSpecProblem(spec)) return spec;
  context.addIssue({ code: "custom", message: spec.problem, path: spec.key === null ? [] : [spec.key] });
  return z.NEVER;
});

const parameterName = z.string().refine(isParameterName, {
  error: "is no name of a parameter: use letters, digits and _, and begin with a letter",
});

/** `5`, or `1..5000`. */
const range = z.union([z.int(), z.string()]).transform((raw, context): readonly [number, number] => {
  const [, least, most] = /^(\d{1,15})(?:\.\.(\d{1,15}))?$/.exec(String(raw)) ?? [];
  const bounds = [Number(least), Number(most ?? least)] as const;
  if (least !== undefined && bounds[0] <= bounds[1]) return bounds;
  context.addIssue({ code: "custom", message: "wants a count like 5, or a range like 1..5000" });
  return z.NEVER;
});

const counts = z.strictObject({
  insert: range.optional(),
  update: range.optional(),
  delete: range.optional(),
});

/** A value in its text form; the word NULL is NULL. */
const directed = z
  .union([plainText(), z.number(), z.boolean()])
  .transform((v) => (v === "NULL" ? null : String(v)));
const oneOrMore = z.union([directed.transform((v) => [v]), z.array(directed).min(1)]);

/** `up`, `down`, or what the column leaves and arrives at. */
const direction = z.union([
  z.enum(["up", "down"]),
  z
    .strictObject({ from: oneOrMore.optional(), to: oneOrMore.optional() })
    .refine((d) => d.from !== undefined || d.to !== undefined, { error: "wants from, to or both" }),
]);

/** `table.column`. */
export function columnName(): z.ZodType<string> {
  return tableName().refine((s) => /^.+\..+$/.test(s), { error: "wants table.column" });
}

/** One job as the file has it. */
export const jobSchema = z
  .strictObject({
    sql: plainText().optional(),
    module: plainText().optional(),
    command: commandSchema().optional(),
    params: z.record(parameterName, parameter).optional(),
    scope: z.array(tableName()).min(1).optional(),
    expect: z.record(tableName(), counts).optional(),
    direction: z.record(columnName(), direction).optional(),
    timeout: durationSchema().optional(),
    twice: z.boolean().optional(),
  })
  .superRefine((job, context) => {
    const fault = jobFault(job);
    if (fault !== null) context.addIssue({ code: "custom", message: fault.what, path: fault.path });
  });

type RawJob = z.infer<typeof jobSchema>;

function jobFault(job: {
  readonly sql?: string | undefined;
  readonly module?: string | undefined;
  readonly command?: readonly string[] | undefined;
  readonly params?: object | undefined;
  readonly timeout?: unknown;
  readonly twice?: unknown;
}): { readonly what: string; readonly path: string[] } | null {
  const kinds = (["sql", "module", "command"] as const).filter((kind) => job[kind] !== undefined);
  if (kinds.length === 0) return { what: "needs one of sql, module or command", path: [] };
  if (kinds.length > 1) return { what: `has ${kinds.join(" and ")}: a job is one of them`, path: [] };
  if (job.sql !== undefined && kindOfFile(job.sql) !== "sql")
    return { what: "wants a file that ends in .sql", path: ["sql"] };
  if (job.module !== undefined && kindOfFile(job.module) !== "module") {
    return { what: "wants a file that ends in .js, .mjs, .ts or .mts", path: ["module"] };
  }
  if (job.sql !== undefined && job.timeout !== undefined)
    return { what: "is for a module or a command", path: ["timeout"] };
  if (job.sql !== undefined && job.twice !== undefined)
    return { what: "is for a module or a command: SQL is run twice where it can differ", path: ["twice"] };
  const taken = Object.keys(job.params ?? {}).find((name) => name === "database" || name === "database_url");
  if (job.command !== undefined && taken !== undefined) {
    return {
      what: `${taken} is the private copy's address in a command, and no parameter`,
      path: ["params"],
    };
  }
  return null;
}

/** The job with its paths made absolute. */
export function jobDeclaration(name: string, job: RawJob, root: string, at: string): JobDeclaration {
  return {
    name,
    source: sourceOf(job, root),
    // What an SQL text or a module says of its parameters, it says itself; a command line says nothing.
    params: job.params ?? (job.command === undefined ? null : {}),
    scope: job.scope ?? null,
    expect: job.expect === undefined ? null : expectationOf(job.expect),
    direction: job.direction === undefined ? null : Object.entries(job.direction).map(directionOf),
    timeoutSeconds: job.timeout ?? DEFAULT_TIMEOUT_SECONDS,
    twice: job.twice ?? null,
    at,
  };
}

function sourceOf(job: RawJob, root: string): JobSource {
  if (job.command !== undefined) return { kind: "command", argv: job.command, folder: root };
  if (job.sql !== undefined) return { kind: "sql", path: resolve(root, job.sql), shown: job.sql };
  const shown = job.module ?? "";
  return { kind: "module", path: resolve(root, shown), shown };
}

/** Of a table that is named, what is not named is expected not to happen: `delete: 1..5000` is not a licence to update. */
function expectationOf(expect: NonNullable<RawJob["expect"]>): Expectation {
  const none = [0, 0] as const;
  return Object.fromEntries(
    Object.entries(expect).map(([table, ops]) => [
      table,
      { insert: ops.insert ?? none, update: ops.update ?? none, delete: ops.delete ?? none },
    ]),
  );
}

function directionOf([name, said]: readonly [string, z.infer<typeof direction>]): Direction {
  const dot = name.lastIndexOf(".");
  const at = { table: name.slice(0, dot), column: name.slice(dot + 1) };
  if (typeof said === "string") return { ...at, from: null, to: null, way: said };
  return { ...at, from: said.from ?? null, to: said.to ?? null, way: null };
}
