/** The next number of a column: above every row there is, and above every one that AUTOINCREMENT has counted. */
import type { TableShape } from "../../changeset/change.js";
import type { Value } from "../../changeset/value.js";
import type { Connection } from "./driver.js";
import { main, quote } from "./names.js";

/** The largest whole number that the column holds or its counter has reached; null for none, text or blob as it stands. */
export function largestOf(connection: Connection, shape: TableShape, column: number): Value {
  const name = shape.columns[column]?.name ?? "";
  const held = connection.value(`SELECT max(${quote(name)}) FROM ${main(shape.name)}`);
  const counts = connection.value(
    "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence')",
  );
  const isKey = shape.key.length === 1 && shape.key[0] === column;
  if (counts !== 1n || !isKey) return held;
  const counted = connection.value("SELECT seq FROM main.sqlite_sequence WHERE name = ?", shape.name);
  return typeof held !== "bigint" || (typeof counted === "bigint" && counted > held)
    ? (counted ?? held)
    : held;
}
