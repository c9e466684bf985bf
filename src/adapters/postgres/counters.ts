/** What the server itself counted in the job's transaction: the other witness against whom every capture is held. */
import type { Session } from "./driver.js";

/** Versions of rows written to one relation, those of savepoints that were rolled back included. */
export interface Counters {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  readonly hotUpdated: number;
  /** Whether nothing could have switched the counting off on the way: then a zero is a proof. */
  readonly areProof: boolean;
}

/**
 * The counters of a relation. The job's session is fresh, so nothing older is in them.
 * @param areProof {@link countersAreProof}.
 */
export async function countersOf(job: Session, oid: string, areProof: boolean): Promise<Counters> {
  const row = await job.row(
    `SELECT pg_stat_get_xact_tuples_inserted($1::oid), pg_stat_get_xact_tuples_updated($1::oid),
       pg_stat_get_xact_tuples_deleted($1::oid), pg_stat_get_xact_tuples_hot_updated($1::oid)`,
    oid,
  );
  const [inserted = 0, updated = 0, deleted = 0, hotUpdated = 0] = (row ?? []).map(Number);
  return { inserted, updated, deleted, hotUpdated, areProof };
}

/**
 * Whether the counting is on, and no function of this database speaks of switching it: a superuser's function could do so
 * for a moment, and then the counters would be too low.
 */
export async function countersAreProof(job: Session): Promise<boolean> {
  const row = await job.row(
    `SELECT current_setting('track_counts'), EXISTS (SELECT 1 FROM pg_proc p WHERE p.oid >= 16384
       AND (p.prosrc ILIKE '%track_counts%' OR array_to_string(p.proconfig, ' ') ILIKE '%track_counts%'))`,
  );
  return row?.[0] === "on" && row[1] === "f";
}
