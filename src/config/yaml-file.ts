/**
 * From the bytes of a YAML file to a typed value, with the line and column of everything in it.
 *
 * The files read here decide what may happen to production, so the reader is narrower than YAML: version
 * 1.2 without directives, one document, no aliases, no tags, no tabs, no key twice, keys written as text,
 * and no blank values. Every refusal names `file:line:column`. Nothing is repaired or ignored.
 */
import { Composer, type CST, type Document, Parser } from "yaml";
import * as z from "zod";
import { type ErrorCode, UsageError } from "../base/errors.js";
import {
  type Fault,
  MOST_FAULTS,
  immenseFault,
  issueFaults,
  offsetOf,
  shapeFaults,
  syntaxFaults,
} from "./yaml-faults.js";

/** Keys and list indices from the root of the document. */
export type Path = readonly PropertyKey[];

/** A document that was read, and where its parts stand. */
export interface YamlFile<T> {
  readonly value: T;
  /** `file:line:column` of the value at `path`, 1-based; of its nearest ancestor where there is none. */
  readonly at: (path: Path) => string;
}

/** How strictly a file is read. */
export interface YamlOptions {
  /** The code of every refusal; ERR_CONFIG_INVALID when absent. */
  readonly code?: ErrorCode;
  /** Whether `key:` and `key: ""` are refused (the default: empty never means all) or handed to the schema. */
  readonly blanks?: "refused" | "allowed";
}

/**
 * Parses `text` and holds it against `schema`. Use `z.strictObject` in it, so that a misspelt key is an error.
 * @param file the name that errors print, as the reader knows it.
 * @throws UsageError with the code of `options`: the first fault in message, all of them in `why`.
 */
export function parseYaml<T>(
  text: string,
  file: string,
  schema: z.ZodType<T>,
  options: YamlOptions = {},
): YamlFile<T> {
  const position = (offset: number): string => `${file}:${lineColumn(text, offset)}`;
  const refuse = (faults: readonly Fault[]): never => {
    throw invalid(faults, position, options.code ?? "ERR_CONFIG_INVALID");
  };
  const tokens = [...new Parser().parse(text)];
  const immense = immenseFault(tokens);
  if (immense !== null) return refuse([immense]);
  const { document, second } = compose(tokens, text.length);

  const syntax = syntaxFaults(document, second, text);
  // What a broken text seems to say is not worth a second complaint.
  const malformed = syntax.length > 0 ? syntax : shapeFaults(document, options.blanks ?? "refused");
  if (malformed.length > 0) return refuse(malformed);
  if (document.contents === null) return refuse([{ offset: 0, what: "the file is empty" }]);

  const tree: unknown = document.toJS({ maxAliasCount: 0 });
  // A file is read once: compiling a checker for it would cost more than checking.
  const parsed = schema.safeParse(tree, { jitless: true });
  if (!parsed.success) {
    const faults: Fault[] = [];
    for (const issue of parsed.error.issues) {
      if (faults.length > MOST_FAULTS) break;
      faults.push(...issueFaults(issue, document, tree, schema));
    }
    return refuse(faults);
  }
  return { value: parsed.data, at: (path) => position(offsetOf(document, path)) };
}

/** Text that is not blank; a `${…}` in it is refused, because variables stand only in `url`. */
export function plainText(): z.ZodType<string> {
  return z
    .string()
    .refine((s) => s.trim() !== "", { error: "is empty" })
    .refine((s) => !s.includes("${"), { error: "has a ${variable}: variables are only read in url" });
}

/** Whether text has control characters, which no name or path of a configuration has. */
export function hasControls(text: string): boolean {
  return /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(text);
}

/** The first document of the tokens, and where a second begins. The library's own way would read the text again. */
function compose(
  tokens: readonly CST.Token[],
  length: number,
): { readonly document: Document.Parsed; readonly second: number | null } {
  const [document, next] = new Composer({ prettyErrors: false, version: "1.2" }).compose(
    tokens,
    true,
    length,
  );
  if (document === undefined) throw new Error("the reader of YAML gave no document");
  return { document, second: next?.range[0] ?? null };
}

function lineColumn(text: string, offset: number): string {
  const before = text.slice(0, offset).split("\n");
  return `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
}

function invalid(
  faults: readonly Fault[],
  position: (offset: number) => string,
  code: ErrorCode,
): UsageError {
  const ordered = [...faults].sort((a, b) => a.offset - b.offset).slice(0, MOST_FAULTS);
  const lines = ordered.map((f) => `${position(f.offset)} ${f.what}`);
  const least = faults.length > MOST_FAULTS ? "at least " : "";
  const more = lines.length > 1 ? ` (and ${least}${lines.length - 1} more)` : "";
  return new UsageError({
    code,
    message: `${lines[0] ?? ""}${more}`,
    ...(lines.length > 1 ? { why: lines.slice(1, 10).join("; ") } : {}),
    next: [{ actor: "anyone", text: "Correct the file and run the command again." }],
    details: ordered.map((f) => ({ at: position(f.offset), what: f.what })),
  });
}
