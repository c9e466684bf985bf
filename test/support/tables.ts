/** A small table and its changes, for tests of what stores ChangeSets. */
import type { Change, ChangeSet, TableShape } from "../../src/changeset/change.js";
import { changeSet } from "../../src/changeset/source.js";

/** Orders with an integer key and a text. */
export const ORDERS: TableShape = {
  name: "orders",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "status", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};

/** The order goes from pending to paid. */
export function paid(id: number): Change {
  const key = BigInt(id);
  return {
    op: "update",
    table: "orders",
    key: [key],
    origin: "job",
    before: [key, "pending"],
    after: [key, "paid"],
  };
}

/** The order goes away. */
export function gone(id: number, status = "pending"): Change {
  const key = BigInt(id);
  return { op: "delete", table: "orders", key: [key], origin: "job", before: [key, status] };
}

/** The order appears. */
export function born(id: number, status = "new"): Change {
  const key = BigInt(id);
  return { op: "insert", table: "orders", key: [key], origin: "job", after: [key, status] };
}

/** A ChangeSet of orders. */
export function ordersSet(...changes: readonly Change[]): ChangeSet {
  return changeSet([ORDERS], changes);
}
