/**
 * Which pages of a table can hold anything of a transaction that is still open. A page that holds uncommitted work is
 * never marked all-visible, so the others need not be read; which are marked, the extension `pg_visibility` tells. It is
 * asked after the job. Then the cost of a capture follows the change, not the table.
 */
import type { Session } from "./driver.js";
import { literal, quote } from "./names.js";
import type { Storage } from "./schema.js";

/** Pages from and to, both included. */
export interface PageRange {
  readonly from: number;
  readonly to: number;
}

/** Ranges that are nearer to each other than this are read as one. */
const NEAR = 32;
/** Ranges of one query, at most. */
const MOST_RANGES = 64;
/** Where more than this share would be read all the same, the whole table is read, which others can share. */
const WORTH_IT = 0.6;
/** The oldest version that reads ranges of pages without reading the others. */
const OLDEST_VERSION = 140_000;

/** Null: all pages have to be read. */
export async function pagesToRead(fresh: Session, storage: Storage): Promise<readonly PageRange[] | null> {
  const schema = await schemaOfExtension(fresh);
  if (schema === null) return null;
  const map = `${quote(schema)}.pg_visibility_map(${literal(storage.from.replace(/^ONLY /, ""))}::regclass)`;
  const [open = "0", all = "0"] = ((await fresh.row(
    `SELECT count(*) FILTER (WHERE NOT all_visible), count(*) FROM ${map}`,
  )) ?? []) as readonly string[];
  if (Number(open) > Number(all) * WORTH_IT) return null;
  const ranges = await fresh.rows(
    `SELECT min(page), max(page) FROM (
       SELECT page, sum(CASE WHEN page - was <= ${NEAR} THEN 0 ELSE 1 END) OVER (ORDER BY page) AS range FROM (
         SELECT blkno AS page, lag(blkno, 1, -1000::bigint) OVER (ORDER BY blkno) AS was FROM ${map} WHERE NOT all_visible
       ) AS p) AS r GROUP BY range ORDER BY 1`,
  );
  const joined = joinNear(
    ranges.map(([from, to]) => ({ from: Number(from), to: Number(to) })),
    MOST_RANGES,
  );
  const pages = joined.reduce((sum, r) => sum + r.to - r.from + 1, 0);
  return pages > Number(all) * WORTH_IT ? null : joined;
}

/** Joins neighbours, the nearest first, until no more than `most` are left. Law: every page that was in one is in one. */
export function joinNear(ranges: readonly PageRange[], most: number): readonly PageRange[] {
  if (ranges.length <= most) return ranges;
  const gaps = ranges.slice(1).map((r, i) => r.from - (ranges[i]?.to ?? 0));
  // The gap at which few enough stay apart: only gaps that are larger divide.
  const limit = [...gaps].sort((a, b) => b - a)[most - 1] ?? 0;
  const joined: PageRange[] = [];
  for (const range of ranges) {
    const last = joined.at(-1);
    if (last !== undefined && range.from - last.to <= limit)
      joined[joined.length - 1] = { from: last.from, to: range.to };
    else joined.push(range);
  }
  return joined;
}

/**
 * The table for `FROM`, as `t`, with its hidden columns `ctid`, `xmin` and `xmax`; of these pages only, where they are
 * named.
 */
export function tableAs(storage: Storage, pages: readonly PageRange[] | null): string {
  if (pages === null) return `${storage.from} AS t`;
  const columns = ["ctid", "xmin", "xmax", ...storage.table.columns.map((c) => quote(c.name))].join(", ");
  const parts = pages.map(
    ({ from, to }) =>
      `SELECT ${columns} FROM ${storage.from} WHERE ctid >= '(${from},0)'::tid AND ctid < '(${to + 1},0)'::tid`,
  );
  const none = `SELECT ${columns} FROM ${storage.from} WHERE false`;
  return `(${parts.length === 0 ? none : parts.join(" UNION ALL ")}) AS t`;
}

/** Null where it is not installed, the role may not call it, or the server cannot make use of it. */
async function schemaOfExtension(session: Session): Promise<string | null> {
  const found = await session.row(
    `SELECT n.nspname, current_setting('server_version_num') FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
       JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = 'pg_visibility_map' AND p.pronargs = 1
     WHERE e.extname = 'pg_visibility' AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')`,
  );
  return found === undefined || Number(found[1]) < OLDEST_VERSION ? null : (found[0] ?? null);
}
