/**
 * The resolutions file: rows that need a decision, each with its values before, as we wrote it, and now. It is
 * written for a person to fill in and read back strictly: a row that nobody decided refuses the whole file.
 * Format page: `docs/formats/resolutions.md`.
 */
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { stringify } from "yaml";
import * as z from "zod";
import { codeOf, UsageError } from "../base/errors.js";
import { parseYaml } from "./yaml-file.js";

/** What may be decided about a row. */
export type RowDecision = "keep-now" | "restore-before";

/** One cell in dispute, as text for people. */
export interface CellText {
  readonly column: string;
  readonly before: string;
  readonly wrote: string;
  readonly now: string;
}

/** One row to decide. */
export interface RowToDecide {
  readonly table: string;
  readonly key: string;
  readonly kind: string;
  /** The mark that binds the decision to these values. */
  readonly row: string;
  readonly changedBy: string | null;
  /** What may be decided: a row whose key belongs to another one can only be kept. */
  readonly mayRestore: boolean;
  readonly cells: readonly CellText[];
}

/** What a file is about. */
export interface ResolutionsHead {
  /** The runs that are undone, or the snapshot that a rescue starts from. */
  readonly of: readonly string[];
  readonly target: string;
}

/** Decisions as they were read: each with its place, for errors. */
export interface Resolutions extends ResolutionsHead {
  readonly decisions: ReadonlyMap<string, { readonly decide: RowDecision; readonly at: string }>;
}

const MAX_BYTES = 64 * 1024 * 1024;
const FORMAT = "holdpoint-resolutions/1";
const FREE_NAMES = 1000;

const schema = z.strictObject({
  format: z.literal(FORMAT),
  of: z.array(z.string()).min(1),
  target: z.string(),
  rows: z
    .array(
      z.strictObject({
        table: z.string(),
        key: z.string(),
        kind: z.string(),
        row: z.string().regex(/^[0-9a-f]{32}$/, { error: "is not the mark that was written there" }),
        changed_by: z.string().optional(),
        decide: z.enum(["keep-now", "restore-before"]),
        cells: z
          .array(
            z.strictObject({ column: z.string(), before: z.string(), wrote: z.string(), now: z.string() }),
          )
          .optional(),
      }),
    )
    .min(1),
});

/** The file's text. Values are what the caller made of them: masked columns arrive masked. Pure. */
export function resolutionsText(
  head: ResolutionsHead,
  rows: readonly RowToDecide[],
  command: string,
): string {
  const tree = {
    format: FORMAT,
    of: [...head.of],
    target: head.target,
    rows: rows.map((r) => ({
      table: r.table,
      key: r.key,
      kind: r.kind,
      ...(r.changedBy === null ? {} : { changed_by: r.changedBy }),
      ...(r.cells.length === 0 ? {} : { cells: r.cells.map((c) => ({ ...c })) }),
      decide: r.mayRestore ? "?" : "keep-now",
      row: r.row,
    })),
  };
  return `${HEADER}#   ${command}\n\n${stringify(tree, { lineWidth: 0, defaultStringType: "QUOTE_DOUBLE", defaultKeyType: "PLAIN" })}`;
}

const HEADER = `# Rows that cannot be taken back without a decision. This file holds values of the target: keep it private.
# Write for each row, in place of "?":
#   keep-now         leave the row as it is now
#   restore-before   put the value before back, over the newer one
# A row that is marked keep-now already cannot be restored: its key belongs to another row now, or the target would not
# take it. Then run:
`;

/**
 * Writes the file (0600) into `folder` under the first free name: `NAME.yaml`, `NAME-2.yaml` … Never overwrites.
 * @returns the name that was taken, relative to `folder`.
 */
export async function writeResolutions(
  folder: string,
  name: string,
  head: ResolutionsHead,
  rows: readonly RowToDecide[],
  commandFor: (file: string) => string,
): Promise<string> {
  for (let n = 1; n <= FREE_NAMES; n++) {
    const file = n === 1 ? `${name}.yaml` : `${name}-${n}.yaml`;
    try {
      const text = resolutionsText(head, rows, commandFor(file));
      await writeFile(resolve(folder, file), text, { flag: "wx", mode: 0o600 });
      return file;
    } catch (e) {
      if (codeOf(e) !== "EEXIST") throw cannotWrite(file, e);
    }
  }
  throw cannotWrite(`${name}.yaml`, undefined);
}

/**
 * Reads decisions. Every row must be decided.
 * @throws UsageError ERR_RESOLUTIONS_INVALID with `file:line:column`.
 */
export async function readResolutions(folder: string, file: string): Promise<Resolutions> {
  let text: string;
  try {
    text = await readFile(resolve(folder, file), "utf8");
  } catch (e) {
    throw invalid(`the resolutions file ${file} cannot be read`, codeOf(e) ?? "it is no file", e);
  }
  if (text.length > MAX_BYTES) throw invalid(`${file} is too long`, `at most ${MAX_BYTES} bytes are read`);
  return parseResolutions(text, file);
}

/** {@link readResolutions} of a text. Pure. */
export function parseResolutions(text: string, file: string): Resolutions {
  const { value, at } = parseYaml(text, file, schema, { code: "ERR_RESOLUTIONS_INVALID" });
  const decisions = new Map<string, { readonly decide: RowDecision; readonly at: string }>();
  value.rows.forEach((r, i) => {
    const place = at(["rows", i, "decide"]);
    if (decisions.has(r.row)) throw invalid(`${at(["rows", i, "row"])}: a row is decided twice`, r.row);
    decisions.set(r.row, { decide: r.decide, at: place });
  });
  return { of: value.of, target: value.target, decisions };
}

function cannotWrite(file: string, cause: unknown): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `the resolutions file ${file} cannot be written`,
    why: codeOf(cause) ?? "no free name was found",
    next: [{ actor: "anyone", text: "Run it in a folder that you may write to." }],
    cause,
  });
}

function invalid(message: string, why: string, cause?: unknown): UsageError {
  return new UsageError({ code: "ERR_RESOLUTIONS_INVALID", message, why, cause });
}
