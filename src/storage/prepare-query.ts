/**
 * Whether a question in SQL could be asked of a working ChangeSet, found out without one: the tables that it would have
 * are made empty, in memory, and the question is prepared and never run. So a misspelt column of an assertion is found when
 * the policy is looked at, and not by the first plan that changes its tables.
 */
import { messageOf } from "../base/errors.js";
import { createSql, FACT_COLUMNS, layoutOf } from "./changes-layout.js";
import { type Database, loadSqlite } from "./sqlite.js";

/** A table of the question; null where its columns are not known: then any `before_…` and `after_…` may be there. */
export interface AskedTable {
  readonly name: string;
  readonly columns: readonly string[] | null;
}

/** Why the question cannot be asked; null when it can. */
export type PrepareQuery = (sql: string, tables: readonly AskedTable[]) => string | null;

/** More columns than this are not learnt from one question. */
const MOST_LEARNT = 200;

/** A preparer; it holds nothing open. */
export async function queryPreparer(): Promise<PrepareQuery> {
  const sqlite = await loadSqlite();
  return (sql, tables) => {
    const learnt = new Map(tables.map((t) => [t.name, new Set(t.columns ?? [])]));
    for (let tries = 0; tries <= MOST_LEARNT; tries++) {
      const db = new sqlite(":memory:");
      try {
        const why = prepare(db, sql, tables, learnt);
        if (why === null || !learn(why, tables, learnt)) return why === null ? null : explained(why);
      } finally {
        db.close();
      }
    }
    return `it names more than ${MOST_LEARNT} columns`;
  };
}

function prepare(
  db: Database,
  sql: string,
  tables: readonly AskedTable[],
  learnt: ReadonlyMap<string, ReadonlySet<string>>,
): string | null {
  db.pragma("trusted_schema = OFF");
  const taken: string[] = [];
  for (const { name } of tables) {
    const columns = [...(learnt.get(name) ?? [])].map((column) => ({ name: column, type: "" }));
    const layout = layoutOf({ name, columns, keyKind: "none", key: [] }, taken);
    taken.push(layout.sqlName);
    db.exec(createSql(layout));
  }
  try {
    const statement = db.prepare(sql);
    return statement.reader && statement.readonly ? null : "it is no question: it would write";
  } catch (e) {
    return messageOf(e);
  }
}

/** Adds a column that the question names and that could be there; false when nothing was added. */
function learn(
  why: string,
  tables: readonly AskedTable[],
  learnt: ReadonlyMap<string, Set<string>>,
): boolean {
  // A name in double quotes could have been meant as a text; SQLite says so behind it.
  const named = /^no such column: (.*?)(?: - should this be a string literal.*)?$/is.exec(why)?.[1] ?? "";
  const [, qualified = "", image = ""] =
    /^(?:(.*)\.)?((?:before|after)_.+)$/is.exec(named.replace(/^"(.*)"$/s, "$1")) ?? [];
  const column = image.replace(/^(?:before|after)_/i, "");
  if (column === "") return false;
  const open = tables.filter((t) => t.columns === null && learnt.get(t.name)?.has(column) === false);
  // A name without a table belongs to one of them; one with a table or its alias may belong to any.
  const adding = qualified === "" ? open.slice(0, 1) : open;
  for (const t of adding) learnt.get(t.name)?.add(column);
  return adding.length > 0;
}

function explained(why: string): string {
  if (!why.startsWith("no such column")) return why;
  return `${why} (there are ${FACT_COLUMNS.join(", ")}, and before_… and after_… of each column)`;
}
