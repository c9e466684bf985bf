/** A whole target as its own program dumps it, and what was counted beside it. */
import type { TableShape } from "../changeset/change.js";

/** What is known of a dump apart from its bytes: what it has to hold once it is restored. */
export interface DumpFacts {
  /** The program with its version, as it tells it: `pg_dump (PostgreSQL) 15.18`. */
  readonly program: string;
  /** Version of the server: `15.18`. */
  readonly server: string;
  /** Encoding of the database, in the server's word for it. */
  readonly encoding: string;
  /** Every table whose rows it holds, the marker's too, with its rows as of the dump's own moment; by name. */
  readonly tables: readonly { readonly name: string; readonly rows: number }[];
  readonly largeObjects: number;
}

/** A dump that was made. */
export interface Dumped {
  readonly facts: DumpFacts;
  /** The tables that can be planned for, as of the same moment. */
  readonly tables: readonly TableShape[];
  /** Rows of all tables that are not the marker's. */
  readonly rows: number;
}

/** Where a restored dump holds something else than was counted beside it; undefined where it does not. */
export function misfitOf(
  expected: Pick<DumpFacts, "tables" | "largeObjects">,
  found: Pick<DumpFacts, "tables" | "largeObjects">,
): string | undefined {
  const here = new Map(found.tables.map((t) => [t.name, t.rows]));
  for (const { name, rows } of expected.tables) {
    const restored = here.get(name);
    if (restored === undefined) return `the restored dump has no table ${name}`;
    if (restored !== rows)
      return `${name} had ${rows} rows when it was dumped and has ${restored} when restored`;
  }
  const known = new Set(expected.tables.map((t) => t.name));
  const stranger = found.tables.find((t) => !known.has(t.name));
  if (stranger !== undefined) return `the restored dump has a table ${stranger.name} that was not counted`;
  return expected.largeObjects === found.largeObjects
    ? undefined
    : `${expected.largeObjects} large objects were dumped and ${found.largeObjects} restored`;
}
