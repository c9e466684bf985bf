/**
 * The marker's tables in an SQLite database. `env pin` makes them, or a DBA who runs the same SQL; everything
 * else only reads them, and writes marks in the transaction of the batch they belong to.
 */
import { canonical } from "../../base/canonical.js";
import type { Digest } from "../../base/digest.js";
import {
  type AnchoredHead,
  type BatchMark,
  MARKER_TABLES,
  type MarkedHistory,
  type Marker,
  type Note,
  type SpentMark,
} from "../../target/marker.js";
import {
  anchoredOf,
  BATCH_COLUMNS,
  batchOf,
  historyOf,
  MARKER_COLUMNS,
  markerOf,
  NO_HISTORY,
  NOTE_COLUMNS,
  noteOf,
  notPinned,
  SPENT_COLUMNS,
  spentOf,
  unreadable,
} from "../../target/marker-cells.js";
import type { Connection } from "./driver.js";
import { literal } from "./names.js";

const TABLES: readonly string[] = [
  `CREATE TABLE IF NOT EXISTS holdpoint_marker (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  format TEXT NOT NULL, identity TEXT NOT NULL, name TEXT NOT NULL, environment TEXT NOT NULL,
  place TEXT NOT NULL, bundle TEXT NOT NULL,
  ledger TEXT NOT NULL, ledger_sequence INTEGER NOT NULL, ledger_head TEXT NOT NULL,
  pinned_at TEXT NOT NULL, pinned_by TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS holdpoint_spent (
  plan_digest TEXT NOT NULL PRIMARY KEY, plan TEXT NOT NULL, run TEXT NOT NULL, nonces TEXT NOT NULL, at TEXT NOT NULL,
  ledger TEXT NOT NULL, job TEXT NOT NULL, by TEXT, rows INTEGER NOT NULL, "commit" TEXT)`,
  `CREATE TABLE IF NOT EXISTS holdpoint_ledgers (
  ledger TEXT NOT NULL PRIMARY KEY, sequence INTEGER NOT NULL, head TEXT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS holdpoint_batches (
  run TEXT NOT NULL, wave INTEGER NOT NULL, batch INTEGER NOT NULL, rows INTEGER NOT NULL, at TEXT NOT NULL,
  PRIMARY KEY (run, wave, batch))`,
  `CREATE TABLE IF NOT EXISTS holdpoint_notes (
  number INTEGER PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, at TEXT NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL)`,
];

/**
 * The SQL that makes the marker, or replaces the one row that says who the target is; spent tokens, batches and
 * notes stay. One transaction, to be run whole. Law: `pin(m)` leaves what these statements leave.
 */
export function markerSql(marker: Marker): readonly string[] {
  const values = [
    "1",
    ...[
      marker.format,
      marker.identity,
      marker.name,
      marker.environment,
      canonical(marker.place),
      marker.bundle,
    ].map(literal),
    literal(marker.ledger),
    String(marker.ledgerSequence),
    ...[marker.ledgerHead, marker.pinnedAt, marker.pinnedBy].map(literal),
  ];
  return [
    "BEGIN IMMEDIATE",
    ...TABLES,
    // A pin by another ledger keeps what was anchored of the one before.
    `INSERT OR REPLACE INTO holdpoint_ledgers (ledger, sequence, head)
  SELECT ledger, ledger_sequence, ledger_head FROM holdpoint_marker WHERE ledger <> ${literal(marker.ledger)}`,
    `INSERT OR REPLACE INTO holdpoint_marker VALUES (${values.join(", ")})`,
    "COMMIT",
  ];
}

/**
 * Whether the marker's tables are there.
 * @throws RefusedError ERR_ENV_CONTRADICTED where something stands in the place of one that is no table: a view could
 * answer whatever its maker likes, or without an end.
 */
export function isPinned(connection: Connection): boolean {
  const found = connection.rows(
    `SELECT lower(name), type = 'table' AND rootpage > 0 FROM main.sqlite_schema
     WHERE type IN ('table', 'view') AND lower(name) IN (${MARKER_TABLES.map(literal).join(", ")})`,
  );
  const other = found.find(([, isTable]) => isTable !== 1n);
  if (other !== undefined) throw unreadable(`${String(other[0])} is no table`);
  return found.some(([name]) => name === "holdpoint_marker");
}

/** Who the target says it is; null when it was never pinned. @throws as `markerOf`. */
export function readMarker(connection: Connection): Marker | null {
  if (!isPinned(connection)) return null;
  return markerOf(connection.row(`SELECT ${MARKER_COLUMNS.join(", ")} FROM main.holdpoint_marker`));
}

/** The run that spent a token for that plan here. */
export function readSpent(connection: Connection, planDigest: Digest): SpentMark | null {
  if (!isPinned(connection)) return null;
  const sql = `SELECT ${SPENT_COLUMNS} FROM main.holdpoint_spent WHERE plan_digest = ?`;
  const row = connection.row(sql, planDigest);
  return row === undefined ? null : spentOf(planDigest, row);
}

/** Whether an approval with that nonce was used here, for any plan. */
export function readNonceSpent(connection: Connection, nonce: string): boolean {
  if (!isPinned(connection)) return false;
  const sql = "SELECT EXISTS (SELECT 1 FROM main.holdpoint_spent, json_each(nonces) AS n WHERE n.value = ?)";
  return connection.value(sql, nonce) === 1n;
}

/** How far a run is. */
export function readBatches(connection: Connection, run: string): readonly BatchMark[] {
  if (!isPinned(connection)) return [];
  const sql = `SELECT ${BATCH_COLUMNS} FROM main.holdpoint_batches WHERE run = ? ORDER BY wave, batch`;
  return connection.rows(sql, run).map((row) => batchOf(run, row));
}

/** The negative facts kept here, in the order they were written. */
export function readNotes(connection: Connection): readonly Note[] {
  if (!isPinned(connection)) return [];
  return connection.rows(`SELECT ${NOTE_COLUMNS} FROM main.holdpoint_notes ORDER BY number`).map(noteOf);
}

/** Marks a token as spent. A plan is spent once: a second mark for it fails. */
export function writeSpent(connection: Connection, mark: SpentMark): void {
  assertPinned(connection);
  connection.run(
    `INSERT INTO main.holdpoint_spent (plan_digest, plan, run, nonces, at, ledger, job, by, rows, "commit")
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    mark.planDigest,
    mark.plan,
    mark.run,
    canonical(mark.nonces),
    mark.at,
    mark.ledger,
    mark.job,
    mark.by,
    BigInt(mark.rows),
    mark.commit,
  );
}

/** Marks a batch as written. */
export function writeBatch(connection: Connection, mark: BatchMark): void {
  assertPinned(connection);
  const values = [mark.run, BigInt(mark.wave), BigInt(mark.batch), BigInt(mark.rows), mark.at];
  connection.run(
    "INSERT INTO main.holdpoint_batches (run, wave, batch, rows, at) VALUES (?, ?, ?, ?, ?)",
    ...values,
  );
}

/** Takes back the marks of a wave: its rows are put back in the same transaction. */
export function clearBatches(connection: Connection, run: string, wave: number): void {
  assertPinned(connection);
  connection.run("DELETE FROM main.holdpoint_batches WHERE run = ? AND wave = ?", run, BigInt(wave));
}

/** Keeps a negative fact. */
export function writeNote(connection: Connection, note: Note): void {
  assertPinned(connection);
  const values = [note.kind, note.subject, note.at, note.by, note.reason];
  connection.run(
    "INSERT INTO main.holdpoint_notes (kind, subject, at, by, reason) VALUES (?, ?, ?, ?, ?)",
    ...values,
  );
}

/**
 * Anchors the ledger's head, so that a ledger without it is known to be another or cut short. Never goes back: a
 * note and a batch may be written at the same time, and their entries in another order.
 */
export function writeAnchor(connection: Connection, { ledger, sequence, head }: AnchoredHead): void {
  assertPinned(connection);
  const at = BigInt(sequence);
  if (connection.value("SELECT ledger FROM main.holdpoint_marker") === ledger) {
    const sql =
      "UPDATE main.holdpoint_marker SET ledger_sequence = ?, ledger_head = ? WHERE ledger_sequence <= ?";
    connection.run(sql, at, head, at);
    return;
  }
  connection.run(
    `INSERT INTO main.holdpoint_ledgers (ledger, sequence, head) VALUES (?, ?, ?)
     ON CONFLICT (ledger) DO UPDATE SET sequence = excluded.sequence, head = excluded.head
     WHERE sequence <= excluded.sequence`,
    ledger,
    at,
    head,
  );
}

/** The head of a ledger other than the one that pinned. */
export function readAnchoredHead(connection: Connection, ledger: string): AnchoredHead | null {
  if (!isPinned(connection)) return null;
  const row = connection.row("SELECT sequence, head FROM main.holdpoint_ledgers WHERE ledger = ?", ledger);
  return row === undefined ? null : anchoredOf(ledger, row);
}

/** What the spent marks tell of a job's runs, and of everybody's rows since a time. */
export function readHistory(
  connection: Connection,
  of: { readonly job: string; readonly since: string },
): MarkedHistory {
  if (!isPinned(connection)) return NO_HISTORY;
  const runs = connection.value("SELECT count(*) FROM main.holdpoint_spent WHERE job = ?", of.job);
  const last = connection.row(
    'SELECT "commit" FROM main.holdpoint_spent WHERE job = ? ORDER BY at DESC, rowid DESC LIMIT 1',
    of.job,
  );
  const lastAt = connection.value("SELECT max(at) FROM main.holdpoint_spent");
  const recent = connection.rows(
    "SELECT by, sum(rows) FROM main.holdpoint_spent WHERE at > ? GROUP BY by ORDER BY by",
    of.since,
  );
  return historyOf({ runs, commit: last?.[0], lastAt, recent });
}

function assertPinned(connection: Connection): void {
  if (!isPinned(connection)) throw notPinned();
}
