/** Changed keys: a delete and an insert that are one entity. */
import type { Change, Delete, Insert } from "./change.js";
import { compareKeys, keyText } from "./key.js";

/** One entity whose key changed: it went away at `deleted.key` and appeared at `inserted.key`. */
export interface Pair {
  readonly deleted: Delete;
  readonly inserted: Insert;
}

/**
 * The changed keys among the changes of one table. A link is a fact only where both ends say it: an end
 * whose other end is missing, or tells another story, is an ordinary change.
 */
export function pairsOf(changes: Iterable<Change>): readonly Pair[] {
  const inserts = new Map<string, Insert>();
  const deletes: Delete[] = [];
  for (const c of changes) {
    if (c.link === undefined) continue;
    if (c.op === "insert") inserts.set(keyText(c.key), c);
    if (c.op === "delete") deletes.push(c);
  }
  return deletes.flatMap((deleted) => {
    const inserted = inserts.get(keyText(deleted.link ?? []));
    const mutual = inserted?.link !== undefined && compareKeys(inserted.link, deleted.key) === 0;
    return inserted !== undefined && mutual ? [{ deleted, inserted }] : [];
  });
}
