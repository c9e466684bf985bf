/** The rows a plan is about to change, as they are before it: what a snapshot of level `rows` keeps. */
import type { Change, ChangeSink, ChangeSource } from "../changeset/change.js";

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

/** {@link beforeImages} for whoever has the changes passing anyway. Law: `sink` is told the same tables and changes. */
export function beforeImagesInto(sink: ChangeSink): ChangeSink {
  return {
    table: sink.table,
    add: (change) => {
      const image = beforeImage(change);
      if (image !== null) sink.add(image);
    },
  };
}

function beforeImage(c: Change): Change | null {
  if (c.op === "insert") return null;
  const { table, key, before, count } = c;
  const image: Change = { op: "delete", table, key, before, origin: "unknown" };
  return count === undefined ? image : { ...image, count };
}
