/** The rows a plan is about to change, as they are before it: what a snapshot of level `rows` keeps. */
import type { Change, ChangeSource } from "../changeset/change.js";

/**
 * The before-images of a ChangeSet, each as the deletion of that row, so that whatever reads ChangeSets
 * reads a snapshot. Rows that the plan inserts have no before-image and are left out. Streams.
 */
export function beforeImages(source: ChangeSource): ChangeSource {
  return {
    tables: source.tables,
    changes: function* (table) {
      for (const change of source.changes(table)) {
        const image = beforeImage(change);
        if (image !== null) yield image;
      }
    },
  };
}

function beforeImage(c: Change): Change | null {
  if (c.op === "insert") return null;
  const count = c.count === undefined ? {} : { count: c.count };
  return { op: "delete", table: c.table, key: c.key, before: c.before, origin: "unknown", ...count };
}
