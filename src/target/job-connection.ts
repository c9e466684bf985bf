/**
 * The connection that a module job gets: to a private copy, inside the child that runs the job. Each
 * adapter that can rehearse modules has one, as `adapters/X/job-connection.ts`, exporting
 * {@link JobConnector} under the name `openJobConnection`.
 */
import type { Value } from "../changeset/value.js";

/** A row as a module sees it, columns by name. Integers are `bigint`, so that 64 bits stay exact. */
export type JobRow = Readonly<Record<string, Value>>;

/** Values by parameter name, without its sigil. */
export type JobValues = Readonly<Record<string, Value>>;

/** A connection to the private copy. Not guarded: the host that hands it to a job refuses statements first. */
export interface JobConnection {
  readonly all: (sql: string, values: JobValues) => readonly JobRow[];
  readonly iterate: (sql: string, values: JobValues) => Iterable<JobRow>;
  /** Runs a statement to its end; how many rows it changed itself, without cascades and triggers. */
  readonly run: (sql: string, values: JobValues) => { readonly changes: number };
  readonly begin: () => void;
  readonly commit: () => void;
  /** Rolls back what is open and closes. */
  readonly close: () => void;
}

/**
 * Opens the copy at `path`.
 * @param settings the connection settings that change what a job means, e.g. `{ "foreign_keys": "on" }`.
 */
export type JobConnector = (
  path: string,
  settings: Readonly<Record<string, string>>,
) => Promise<JobConnection>;
