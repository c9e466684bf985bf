/**
 * A list of keys: one JSON object a line, `{"table":"orders","key":{"id":900}}`, as `rescue --born` writes it. It is read
 * line by line, so that memory does not grow with it, and strictly: a line that says anything else refuses the whole file.
 */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import * as z from "zod";
import { codeOf, UsageError } from "../base/errors.js";

/** One key of the list. */
export interface KeyLine {
  readonly table: string;
  /** The key's cells by column, each as the JSON text of its value. */
  readonly cells: ReadonlyMap<string, string>;
  /** `keys.jsonl:12`, for errors. */
  readonly at: string;
}

/** A list that was read once and found whole. */
export interface KeysFile {
  readonly file: string;
  /** Reads it again, line by line. */
  readonly lines: () => AsyncIterable<KeyLine>;
}

/** Bounds of a list of keys. */
export const KEYS_LIMITS = { maxLines: 1_000_000, maxLineBytes: 64 * 1024 } as const;

const NEWLINE = 10;
/** How a masked value is written: it names a value to nobody. */
const MASKED = /^·+@/;

const hex = z
  .string()
  .regex(/^(?:[0-9a-f]{2})*$/i)
  .transform((s) => s.toLowerCase());
const cell = z.union([
  z.null(),
  z.string().refine((s) => !MASKED.test(s), { error: "is masked, which names no row" }),
  z.number().refine((n) => !Number.isInteger(n) || Number.isSafeInteger(n), {
    error: "is beyond 2^53: write it as text",
  }),
  z.strictObject({ hex }),
  z.strictObject({ text_hex: hex }),
]);
const schema = z.strictObject({
  table: z.string().min(1),
  key: z.record(z.string(), cell).refine((k) => Object.keys(k).length > 0, { error: "names no column" }),
});

/**
 * Reads a list of keys through once, so that a mistake in it is found before anything long begins.
 * @throws UsageError ERR_USAGE with the file and, where there is one, the line.
 */
export async function readKeys(cwd: string, file: string): Promise<KeysFile> {
  const lines = (): AsyncIterable<KeyLine> => linesOf(resolve(cwd, file), file);
  let found = 0;
  for await (const _ of lines()) found += 1;
  if (found === 0) throw refused(file, "it names no key", "a list that means no row is taken for a mistake");
  return { file, lines };
}

async function* linesOf(path: string, file: string): AsyncGenerator<KeyLine, undefined> {
  let number = 0;
  for await (const bytes of rawLines(path, file)) {
    number += 1;
    const at = `${file}:${number}`;
    if (number > KEYS_LIMITS.maxLines)
      throw refused(at, "it names too many keys", `at most ${KEYS_LIMITS.maxLines} keys are taken`);
    yield lineOf(bytes, at);
  }
}

/** The file's lines; the last one may end without a line feed. */
async function* rawLines(path: string, file: string): AsyncGenerator<Buffer, undefined> {
  let rest = Buffer.alloc(0);
  try {
    // A pipe or a device could be read once only, and might never end.
    if (!(await stat(path)).isFile()) throw refused(file, "it is no file", "a list of keys is a plain file");
    for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
      rest = Buffer.concat([rest, chunk]);
      let from = 0;
      for (let at = rest.indexOf(NEWLINE); at !== -1; at = rest.indexOf(NEWLINE, from)) {
        yield rest.subarray(from, at);
        from = at + 1;
      }
      rest = rest.subarray(from);
      if (rest.length > KEYS_LIMITS.maxLineBytes) throw tooLong(file);
    }
  } catch (e) {
    if (e instanceof UsageError) throw e;
    throw refused(file, "it cannot be read", codeOf(e) ?? "unknown", e);
  }
  if (rest.length > 0) yield rest;
}

function lineOf(bytes: Buffer, at: string): KeyLine {
  if (bytes.length > KEYS_LIMITS.maxLineBytes) throw tooLong(at);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (e) {
    throw refused(at, "the line is no JSON", EXPECTED, e);
  }
  const read = schema.safeParse(json);
  if (!read.success) {
    const [issue] = read.error.issues;
    const where = issue?.path.join(".") ?? "";
    throw refused(
      at,
      "the line is no key",
      `${where === "" ? "" : `${where}: `}${issue?.message ?? ""}; ${EXPECTED}`,
    );
  }
  const cells = Object.entries(read.data.key).map(([k, v]) => [k, JSON.stringify(v)] as const);
  return { table: read.data.table, cells: new Map(cells), at };
}

const EXPECTED = 'each line is a key such as {"table":"orders","key":{"id":900}}';

function tooLong(at: string): UsageError {
  return refused(at, "a line is too long", `a key has at most ${KEYS_LIMITS.maxLineBytes} bytes`);
}

function refused(at: string, what: string, why: string, cause?: unknown): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${at}: ${what}`,
    why,
    ...(cause === undefined ? {} : { cause }),
  });
}
