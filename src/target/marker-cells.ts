/**
 * Cells of the marker's tables, read the same way whatever engine holds them. The tables lie where others can write,
 * so nothing in them is believed before it has its form.
 */
import { parseCanonical } from "../base/canonical.js";
import { type Digest, isDigest } from "../base/digest.js";
import { RefusedError, TargetError } from "../base/errors.js";
import { type Environment, ENVIRONMENTS } from "../environment/evidence.js";
import type { AnchoredHead, BatchMark, MarkedHistory, Marker, Note, SpentMark } from "./marker.js";

/** Cells of one row, in the order of the columns that a reader below names. */
type Cells = readonly unknown[];

/** Columns of `holdpoint_marker` in the order of {@link markerOf}. */
export const MARKER_COLUMNS = [
  "format",
  "identity",
  "name",
  "environment",
  "place",
  "bundle",
  "ledger",
  "ledger_sequence",
  "ledger_head",
  "pinned_at",
  "pinned_by",
] as const;

/** Columns of `holdpoint_spent` in the order of {@link spentOf}, as both engines take their names. */
export const SPENT_COLUMNS = 'plan, run, nonces, "at", ledger, job, "by", "rows", "commit"';

/** Columns of `holdpoint_batches` in the order of {@link batchOf}. */
export const BATCH_COLUMNS = 'wave, batch, "rows", "at"';

/** Columns of `holdpoint_notes` in the order of {@link noteOf}. */
export const NOTE_COLUMNS = 'kind, subject, "at", "by", reason';

/**
 * Who the target says it is.
 * @throws RefusedError ERR_ENV_CONTRADICTED when the row is missing or cannot be read: a damaged marker must never pass
 * for a missing one. So do all readers of this file.
 */
export function markerOf(row: Cells | undefined): Marker {
  if (row === undefined) throw unreadable("its row is missing");
  const [format, identity, name, environment, place, bundle, ledger, sequence, head, pinnedAt, pinnedBy] =
    row;
  if (format !== "holdpoint-marker/1") throw unreadable(`its format is ${String(format)}`);
  return {
    format,
    identity: textOf(identity, "identity"),
    name: textOf(name, "name"),
    environment: environmentOf(environment),
    place: placeOf(place),
    bundle: digestOfCell(bundle, "bundle"),
    ledger: textOf(ledger, "ledger"),
    ledgerSequence: numberOf(sequence, "ledger_sequence"),
    ledgerHead: digestOfCell(head, "ledger_head"),
    pinnedAt: textOf(pinnedAt, "pinned_at"),
    pinnedBy: textOf(pinnedBy, "pinned_by"),
  };
}

/** The run that spent a token for that plan. */
export function spentOf(planDigest: Digest, row: Cells): SpentMark {
  const [plan, run, nonces, at, ledger, job, by, rows, commit] = row;
  return {
    plan: textOf(plan, "plan"),
    planDigest,
    run: textOf(run, "run"),
    nonces: noncesOf(nonces),
    at: textOf(at, "at"),
    ledger: textOf(ledger, "ledger"),
    job: textOf(job, "job"),
    by: textOrNull(by, "by"),
    rows: numberOf(rows, "rows"),
    commit: textOrNull(commit, "commit"),
  };
}

/** A batch that a run wrote. */
export function batchOf(run: string, [wave, batch, rows, at]: Cells): BatchMark {
  return {
    run,
    wave: numberOf(wave, "wave"),
    batch: numberOf(batch, "batch"),
    rows: numberOf(rows, "rows"),
    at: textOf(at, "at"),
  };
}

/** A negative fact. */
export function noteOf([kind, subject, at, by, reason]: Cells): Note {
  return {
    kind: kindOf(kind),
    subject: textOf(subject, "subject"),
    at: textOf(at, "at"),
    by: textOf(by, "by"),
    reason: textOf(reason, "reason"),
  };
}

/** The head of a ledger beside the one that pinned. */
export function anchoredOf(ledger: string, [sequence, head]: Cells): AnchoredHead {
  return { ledger, sequence: numberOf(sequence, "sequence"), head: digestOfCell(head, "head") };
}

/** What the spent marks tell; `recent` is by whom and how many rows. */
export function historyOf(found: {
  readonly runs: unknown;
  readonly commit: unknown;
  readonly lastAt: unknown;
  readonly recent: readonly Cells[];
}): MarkedHistory {
  return {
    jobRuns: numberOf(found.runs, "runs"),
    lastCommit: textOrNull(found.commit, "commit"),
    lastAt: textOrNull(found.lastAt, "at"),
    recent: found.recent.map(([by, rows]) => ({ by: textOrNull(by, "by"), rows: numberOf(rows, "rows") })),
  };
}

/** What a target that was never pinned tells. */
export const NO_HISTORY: MarkedHistory = { jobRuns: 0, lastCommit: null, lastAt: null, recent: [] };

/** The refusal to keep a mark where there is no place for it. */
export function notPinned(): TargetError {
  return new TargetError({
    code: "ERR_ENV_NOT_PINNED",
    message: "the target holds no marker",
    why: "spent tokens, batches and notes are kept in the marker's tables, which only a pin makes",
    next: [{ actor: "dba", text: "holdpoint env pin TARGET" }],
  });
}

/** A count, as one engine gives it (an integer) or another (its digits). */
function numberOf(cell: unknown, what: string): number {
  if (typeof cell === "bigint") return Number(cell);
  if (typeof cell === "string" && /^\d{1,15}$/.test(cell)) return Number(cell);
  throw unreadable(`${what} is no number`);
}

const KINDS = [
  "rejected",
  "revoked",
  "held",
  "released",
  "exempted",
  "debt",
  "reviewed",
  "undone",
] as const satisfies readonly Note["kind"][];

/** What kind of note it is. */
function kindOf(cell: unknown): Note["kind"] {
  const kind = KINDS.find((k) => k === cell);
  if (kind === undefined) throw unreadable(`a note's kind is ${String(cell)}`);
  return kind;
}

/** A named environment. */
function environmentOf(cell: unknown): Environment {
  const environment = ENVIRONMENTS.find((e) => e === cell);
  if (environment === undefined) throw unreadable(`its environment is ${String(cell)}`);
  return environment;
}

/** What was recorded of the place: a canonical object of texts. */
function placeOf(cell: unknown): Readonly<Record<string, string>> {
  const parsed = typeof cell === "string" ? parseCanonical(cell) : undefined;
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw unreadable("its place is no object");
  return Object.fromEntries(
    Object.entries(parsed).map(([name, value]) => {
      if (typeof value !== "string") throw unreadable(`${name} in its place is no text`);
      return [name, value];
    }),
  );
}

/** The nonces of a spent token: a canonical list. */
function noncesOf(cell: unknown): readonly string[] {
  const parsed = typeof cell === "string" ? parseCanonical(cell) : undefined;
  if (!Array.isArray(parsed)) throw unreadable("the nonces of a spent token are no list");
  return parsed.map(String);
}

/** A digest; `what` says of what. */
function digestOfCell(cell: unknown, what: string): Digest {
  if (typeof cell === "string" && isDigest(cell)) return cell;
  throw unreadable(`${what} is no digest`);
}

/** A text; `what` names it. */
function textOf(cell: unknown, what: string): string {
  if (typeof cell === "string") return cell;
  throw unreadable(`${what} is no text`);
}

/** A text, or nothing; `what` names it. */
function textOrNull(cell: unknown, what: string): string | null {
  return cell === null || cell === undefined ? null : textOf(cell, what);
}

/** The refusal (33): a marker that cannot be read is never no marker. */
export function unreadable(why: string): RefusedError {
  return new RefusedError({
    code: "ERR_ENV_CONTRADICTED",
    message: "the target's marker cannot be read",
    why,
    next: [{ actor: "dba", text: "find out who changed the tables holdpoint_*, then pin the target again" }],
  });
}
