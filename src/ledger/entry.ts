/**
 * The ledger: an append-only chain of everything that happened. Each entry names the digest of the one
 * before it, so an edited, dropped, swapped or inserted entry breaks the chain; a dropped tail or a
 * replaced ledger is found by the heads that targets, plans and tokens anchor (`docs/formats/ledger.md`).
 * Entries hold digests and counts, never row values, keys or parameters.
 */
import type { Json } from "../base/canonical.js";
import type { Digest } from "../base/digest.js";

/** What happened. New kinds are added, none is ever reused. */
export type EntryKind =
  | "ledger-created"
  | "target-pinned"
  | "planned"
  | "plan-refused"
  | "approved"
  | "rejected"
  | "revoked"
  | "run-started"
  | "run-resumed"
  | "run-committed"
  | "run-finished"
  | "run-failed"
  | "held"
  | "released"
  | "snapshot-taken"
  | "snapshot-pruned"
  | "trust-changed"
  | "drilled"
  | "revealed"
  | "reviewed";

/** One link of the chain. */
export interface Entry {
  readonly format: "holdpoint-ledger/1";
  /** The ledger's id, `lg_…`: an entry of another ledger does not fit. */
  readonly ledger: string;
  /** 0 for the first; always one more than the entry before. */
  readonly sequence: number;
  /** ISO 8601 UTC. May go back (clocks do); the sequence may not. */
  readonly at: string;
  readonly kind: EntryKind;
  /** What the entry is about, for look-ups: target, plan and run where there are any. */
  readonly target: string | null;
  readonly plan: string | null;
  readonly run: string | null;
  /** Facts of this kind of entry. */
  readonly facts: { readonly [key: string]: Json };
  /** Digest of the entry before; of nothing (`sha256:` of the empty string) for the first. */
  readonly previous: Digest;
}

/** What a caller gives; the store adds ledger, sequence, time and previous. */
export type NewEntry = Pick<Entry, "kind" | "facts"> & Partial<Pick<Entry, "target" | "plan" | "run">>;

/** An entry with its own digest. */
export interface SealedEntry {
  readonly entry: Entry;
  readonly digest: Digest;
}

/** The head that a ledger has with this entry as its last, as targets anchor it. */
export function headOf({ entry, digest }: SealedEntry): {
  readonly ledger: string;
  readonly sequence: number;
  readonly head: Digest;
} {
  return { ledger: entry.ledger, sequence: entry.sequence, head: digest };
}

/** A head to hold against the chain: `where` says who anchored it. */
export interface Anchor {
  readonly ledger: string;
  readonly sequence: number;
  readonly head: Digest;
  readonly where: string;
}

/** What `log verify` answers. */
export type Verification =
  | { readonly ok: true; readonly entries: number; readonly head: Digest }
  | { readonly ok: false; readonly entries: number; readonly firstBad: number; readonly why: string };

/** The ledger's store; `storage/` implements it. */
export interface LedgerStore {
  /** The ledger's id and head; null while no ledger exists. */
  readonly head: () => { readonly ledger: string; readonly sequence: number; readonly head: Digest } | null;
  /** When the last entry was made; null while no ledger exists. */
  readonly lastAt: () => string | null;
  /** Creates the ledger; refused when there is one. */
  readonly create: () => SealedEntry;
  /** Appends under a lock against other processes. */
  readonly append: (entry: NewEntry) => SealedEntry;
  /** Newest last, where nothing else is said. Streams. */
  readonly entries: (filter?: {
    readonly plan?: string;
    /** Null for entries that are about no run. */
    readonly run?: string | null;
    readonly target?: string;
    readonly kinds?: readonly EntryKind[];
    /** Whoever looks for the last of something need not read what came before. */
    readonly newestFirst?: boolean;
  }) => Iterable<SealedEntry>;
  /** Checks the whole chain, and that every anchor is in it. */
  readonly verify: (anchors: readonly Anchor[]) => Verification;
  readonly close: () => void;
}
