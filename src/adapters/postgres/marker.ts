/**
 * The marker's tables in a PostgreSQL database, in schema `public`. `env pin` makes them, or a DBA who runs the same
 * SQL; everything else only reads them, and writes marks in the transaction of the batch they belong to.
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
import type { Session } from "./driver.js";
import { literal } from "./names.js";

const TABLES: readonly string[] = [
  `CREATE TABLE IF NOT EXISTS public.holdpoint_marker (
  one integer PRIMARY KEY CHECK (one = 1),
  format text NOT NULL, identity text NOT NULL, name text NOT NULL, environment text NOT NULL,
  place text NOT NULL, bundle text NOT NULL,
  ledger text NOT NULL, ledger_sequence bigint NOT NULL, ledger_head text NOT NULL,
  pinned_at text NOT NULL, pinned_by text NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS public.holdpoint_spent (
  plan_digest text PRIMARY KEY, plan text NOT NULL, run text NOT NULL, nonces text NOT NULL, "at" text NOT NULL,
  ledger text NOT NULL, job text NOT NULL, "by" text, "rows" bigint NOT NULL, "commit" text)`,
  `CREATE TABLE IF NOT EXISTS public.holdpoint_ledgers (
  ledger text PRIMARY KEY, sequence bigint NOT NULL, head text NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS public.holdpoint_batches (
  run text NOT NULL, wave bigint NOT NULL, batch bigint NOT NULL, "rows" bigint NOT NULL, "at" text NOT NULL,
  PRIMARY KEY (run, wave, batch))`,
  `CREATE TABLE IF NOT EXISTS public.holdpoint_notes (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, subject text NOT NULL, "at" text NOT NULL,
  "by" text NOT NULL, reason text NOT NULL)`,
];

const COLUMNS = ["one", ...MARKER_COLUMNS];

/**
 * The SQL that makes the marker, or replaces the one row that says who the target is; spent tokens, batches and
 * notes stay. One transaction, to be run whole. Law: `pin(m)` leaves what these statements leave.
 */
export function markerSql(marker: Marker): readonly string[] {
  const texts = [
    marker.format,
    marker.identity,
    marker.name,
    marker.environment,
    canonical(marker.place),
    marker.bundle,
    marker.ledger,
  ].map(literal);
  const rest = [marker.ledgerHead, marker.pinnedAt, marker.pinnedBy].map(literal);
  const values = ["1", ...texts, String(marker.ledgerSequence), ...rest];
  const replaced = COLUMNS.slice(1).map((c) => `${c} = excluded.${c}`);
  return [
    "BEGIN",
    ...TABLES,
    // A pin by another ledger keeps what was anchored of the one before.
    `INSERT INTO public.holdpoint_ledgers (ledger, sequence, head)
  SELECT ledger, ledger_sequence, ledger_head FROM public.holdpoint_marker WHERE ledger <> ${literal(marker.ledger)}
  ON CONFLICT (ledger) DO UPDATE SET sequence = excluded.sequence, head = excluded.head`,
    `INSERT INTO public.holdpoint_marker (${COLUMNS.join(", ")}) VALUES (${values.join(", ")})
  ON CONFLICT (one) DO UPDATE SET ${replaced.join(", ")}`,
    "COMMIT",
  ];
}

/**
 * Whether the marker's tables are there.
 * @throws RefusedError ERR_ENV_CONTRADICTED where something stands in the place of one that is no table: a view or a rule
 * could answer whatever its maker likes, or without an end, and keep a mark from being written.
 */
export async function isPinned(session: Session): Promise<boolean> {
  const found = await session.rows(
    `SELECT c.relname::text, c.relkind = 'r' AND NOT c.relhasrules
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND c.relname IN (${MARKER_TABLES.map(literal).join(", ")})`,
  );
  const other = found.find(([, isTable]) => isTable !== "t");
  if (other !== undefined) throw unreadable(`${other[0] ?? ""} is no table`);
  return found.some(([name]) => name === "holdpoint_marker");
}

/** Who the target says it is; null when it was never pinned. @throws as `markerOf`. */
export async function readMarker(session: Session): Promise<Marker | null> {
  if (!(await isPinned(session))) return null;
  return markerOf(await session.row(`SELECT ${MARKER_COLUMNS.join(", ")} FROM public.holdpoint_marker`));
}

/** The run that spent a token for that plan here. */
export async function readSpent(session: Session, planDigest: Digest): Promise<SpentMark | null> {
  if (!(await isPinned(session))) return null;
  const sql = `SELECT ${SPENT_COLUMNS} FROM public.holdpoint_spent WHERE plan_digest = $1`;
  const row = await session.row(sql, planDigest);
  return row === undefined ? null : spentOf(planDigest, row);
}

/** Whether an approval with that nonce was used here, for any plan. */
export async function readNonceSpent(session: Session, nonce: string): Promise<boolean> {
  if (!(await isPinned(session))) return false;
  const sql = "SELECT EXISTS (SELECT 1 FROM public.holdpoint_spent WHERE nonces::jsonb ? $1)";
  return (await session.value(sql, nonce)) === "t";
}

/** How far a run is. */
export async function readBatches(session: Session, run: string): Promise<readonly BatchMark[]> {
  if (!(await isPinned(session))) return [];
  const sql = `SELECT ${BATCH_COLUMNS} FROM public.holdpoint_batches WHERE run = $1 ORDER BY wave, batch`;
  return (await session.rows(sql, run)).map((row) => batchOf(run, row));
}

/** The negative facts kept here, in the order they were written. */
export async function readNotes(session: Session): Promise<readonly Note[]> {
  if (!(await isPinned(session))) return [];
  const rows = await session.rows(`SELECT ${NOTE_COLUMNS} FROM public.holdpoint_notes ORDER BY number`);
  return rows.map(noteOf);
}

/** Marks a token as spent. A plan is spent once: a second mark for it fails. */
export async function writeSpent(session: Session, mark: SpentMark): Promise<void> {
  await assertPinned(session);
  await session.run(
    `INSERT INTO public.holdpoint_spent (plan_digest, plan, run, nonces, "at", ledger, job, "by", "rows", "commit")
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
    mark.planDigest,
    mark.plan,
    mark.run,
    canonical(mark.nonces),
    mark.at,
    mark.ledger,
    mark.job,
    mark.by,
    String(mark.rows),
    mark.commit,
  );
}

/** Marks a batch as written. */
export async function writeBatch(session: Session, mark: BatchMark): Promise<void> {
  await assertPinned(session);
  await session.run(
    `INSERT INTO public.holdpoint_batches (run, wave, batch, "rows", "at") VALUES ($1, $2, $3, $4, $5)`,
    mark.run,
    String(mark.wave),
    String(mark.batch),
    String(mark.rows),
    mark.at,
  );
}

/** Takes back the marks of a wave: its rows are put back in the same transaction. */
export async function clearBatches(session: Session, run: string, wave: number): Promise<void> {
  await assertPinned(session);
  const sql = "DELETE FROM public.holdpoint_batches WHERE run = $1 AND wave = $2";
  await session.run(sql, run, String(wave));
}

/** Keeps a negative fact. */
export async function writeNote(session: Session, note: Note): Promise<void> {
  await assertPinned(session);
  await session.run(
    `INSERT INTO public.holdpoint_notes (kind, subject, "at", "by", reason) VALUES ($1, $2, $3, $4, $5)`,
    note.kind,
    note.subject,
    note.at,
    note.by,
    note.reason,
  );
}

/** Anchors the ledger's head, so that a ledger without it is known to be another or cut short. Never goes back. */
export async function writeAnchor(session: Session, { ledger, sequence, head }: AnchoredHead): Promise<void> {
  await assertPinned(session);
  const at = String(sequence);
  if ((await session.value("SELECT ledger FROM public.holdpoint_marker")) === ledger) {
    const sql =
      "UPDATE public.holdpoint_marker SET ledger_sequence = $1, ledger_head = $2 WHERE ledger_sequence <= $1";
    await session.run(sql, at, head);
    return;
  }
  await session.run(
    `INSERT INTO public.holdpoint_ledgers AS l (ledger, sequence, head) VALUES ($1, $2, $3)
     ON CONFLICT (ledger) DO UPDATE SET sequence = excluded.sequence, head = excluded.head
     WHERE l.sequence <= excluded.sequence`,
    ledger,
    at,
    head,
  );
}

/** The head of a ledger other than the one that pinned. */
export async function readAnchoredHead(session: Session, ledger: string): Promise<AnchoredHead | null> {
  if (!(await isPinned(session))) return null;
  const row = await session.row(
    "SELECT sequence, head FROM public.holdpoint_ledgers WHERE ledger = $1",
    ledger,
  );
  return row === undefined ? null : anchoredOf(ledger, row);
}

/** What the spent marks tell of a job's runs, and of everybody's rows since a time. */
export async function readHistory(
  session: Session,
  of: { readonly job: string; readonly since: string },
): Promise<MarkedHistory> {
  if (!(await isPinned(session))) return NO_HISTORY;
  const runs = await session.value("SELECT count(*) FROM public.holdpoint_spent WHERE job = $1", of.job);
  const last = await session.row(
    'SELECT "commit" FROM public.holdpoint_spent WHERE job = $1 ORDER BY "at" COLLATE "C" DESC LIMIT 1',
    of.job,
  );
  const lastAt = await session.value('SELECT max("at" COLLATE "C") FROM public.holdpoint_spent');
  const recent = await session.rows(
    'SELECT "by", sum("rows") FROM public.holdpoint_spent WHERE "at" COLLATE "C" > $1 GROUP BY "by" ORDER BY "by"',
    of.since,
  );
  return historyOf({ runs, commit: last?.[0], lastAt, recent });
}

async function assertPinned(session: Session): Promise<void> {
  if (!(await isPinned(session))) throw notPinned();
}
