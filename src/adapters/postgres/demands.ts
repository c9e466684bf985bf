/**
 * What statements of jobs demand of a role beyond reading and writing rows: TRUNCATE is a privilege of its own, and the
 * schema of a table is its owner's to change. Told by the engine's own parser; what does not parse demands nothing here,
 * and is refused where it is planned.
 */
import { loadParser, type Parser } from "./statements.js";

/** A table as a statement names it. */
export interface Named {
  /** Null where it stands alone. */
  readonly schema: string | null;
  readonly name: string;
}

/** Tables that statements empty, and tables whose schema they change. */
export interface Demands {
  readonly truncated: readonly Named[];
  readonly altered: readonly Named[];
}

/** The demands of all statements together. */
export async function demandsOf(statements: readonly string[]): Promise<Demands> {
  const [truncated, altered]: [Named[], Named[]] = [[], []];
  if (statements.length === 0) return { truncated, altered };
  const parser = await loadParser();
  for (const node of statements.flatMap((text) => parsed(parser, text))) {
    truncated.push(...listOf(at(node, "TruncateStmt", "relations")).flatMap((r) => named(at(r, "RangeVar"))));
    for (const kind of ["AlterTableStmt", "RenameStmt", "IndexStmt"])
      altered.push(...named(at(node, kind, "relation")));
    if (at(node, "DropStmt", "removeType") === "OBJECT_TABLE")
      altered.push(...listOf(at(node, "DropStmt", "objects")).flatMap(dropped));
  }
  return { truncated, altered };
}

function parsed(parser: Parser, text: string): readonly unknown[] {
  try {
    return parser.parse(text);
  } catch {
    return []; // of another engine, or no SQL: whoever plans it is told
  }
}

function named(relation: unknown): readonly Named[] {
  const [name, schema] = [at(relation, "relname"), at(relation, "schemaname")];
  return typeof name === "string" ? [{ name, schema: typeof schema === "string" ? schema : null }] : [];
}

function dropped(object: unknown): readonly Named[] {
  const words = listOf(at(object, "List", "items")).map((item) => at(item, "String", "sval"));
  const [name, schema = null] = words.toReversed();
  return typeof name === "string" ? [{ name, schema: typeof schema === "string" ? schema : null }] : [];
}

function at(node: unknown, ...path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (here, key) =>
      typeof here === "object" && here !== null
        ? Object.getOwnPropertyDescriptor(here, key)?.value
        : undefined,
    node,
  );
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
