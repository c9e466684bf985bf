/**
 * Everything an operation may reach, as records of functions. Built once in `cli/wiring.ts`; operations
 * import neither adapters nor machine nor storage. Nothing here is a singleton.
 */
import type { PlanStatement } from "../approval/plan-statement.js";
import type { Person } from "../approval/requirement.js";
import type { TrustBundle } from "../approval/bundle.js";
import type { Clock, Random } from "../base/clock.js";
import type { Digest } from "../base/digest.js";
import type { Change, ChangeSink, ChangeSource, RowKey } from "../changeset/change.js";
import type { Value } from "../changeset/value.js";
import type { Config } from "../config/config.js";
import type { Evidence } from "../environment/evidence.js";
import type { JobRequest, PreparedJob } from "../jobs/job.js";
import type { LedgerStore } from "../ledger/entry.js";
import type { CompiledPolicies } from "../policy/compile.js";
import type { SnapshotManifest } from "../snapshot/snapshot.js";
import type { Target } from "../target/target.js";
import type { Interruption } from "./interruption.js";

export type { JobRequest, PreparedJob } from "../jobs/job.js";

/** Where a connection value came from: shown, because inherited values mislead. */
export interface ValueOrigin {
  readonly part: string;
  readonly from: string;
  readonly inherited: boolean;
}

/** The project around the working directory: its configuration, people and policies, read and checked. */
export interface Project {
  readonly config: Config;
  readonly people: readonly Person[];
  readonly policies: CompiledPolicies;
  /** The trust bundle that guards one target. */
  readonly bundleFor: (target: string) => TrustBundle;
}

/** A ChangeSet in its working form: a fresh SQLite file of ours that can be asked in SQL. */
export interface WorkingChanges extends ChangeSource {
  readonly path: string;
  readonly get: (table: string, key: RowKey) => Change | undefined;
  readonly query: (
    sql: string,
    limits: { readonly maxRows: number; readonly maxMs: number },
  ) => Promise<QueryAnswer>;
  readonly close: () => void;
}

/** The answer to a question in SQL; values already in their text form for people. */
export interface QueryAnswer {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly Value[])[];
  readonly truncated: boolean;
}

/** A working ChangeSet being written. */
export interface ChangesWriter extends ChangeSink {
  readonly finish: () => WorkingChanges;
  readonly abort: () => void;
}

/** A plan's file as it was read: bytes not yet believed. */
export interface PlanFile {
  readonly path: string;
  readonly statement: Uint8Array;
  readonly signature: Uint8Array | null;
  /** Streams the verified ChangeSet into the sink. */
  readonly loadInto: (sink: ChangeSink) => Promise<{ readonly rows: number; readonly digest: Digest }>;
}

/** The store's plans. */
export interface PlanShelf {
  /** Writes the plan file into the store, and a copy to `out` when given. */
  readonly save: (plan: {
    readonly id: string;
    readonly statement: Uint8Array;
    readonly signature: Uint8Array | null;
    readonly source: ChangeSource;
    readonly out?: string;
  }) => Promise<string>;
  /** By id, unique prefix or file. */
  readonly read: (ref: string) => Promise<PlanFile>;
  readonly ids: () => Promise<readonly string[]>;
}

/** The store's snapshots of rows. */
export interface SnapshotShelf {
  /** Writes, closes, reads back and compares; ERR_SNAPSHOT_UNVERIFIED when they differ. */
  readonly take: (
    manifest: Omit<SnapshotManifest, "format" | "tables" | "rows" | "content">,
    before: ChangeSource,
  ) => Promise<{ readonly manifest: SnapshotManifest; readonly digest: Digest }>;
}

/** A key that can sign here. */
export interface SigningKey {
  readonly fingerprint: string;
  /** The person whom the bundle knows by this key; null when it knows none. */
  readonly person: string | null;
  /** An SSHSIG blob in the namespace that the key was found for. */
  readonly sign: (bytes: Uint8Array) => Promise<Uint8Array>;
}

/** Lines about what is going on, for stderr. */
export interface Progress {
  /** Something of unknown length begins; the returned function ends it. */
  readonly begin: (what: string) => (done?: string) => void;
  /** A check that passed. */
  readonly check: (what: string, took?: string) => void;
}

/** What an operation works with. */
export interface Toolbox {
  readonly clock: Clock;
  readonly random: Random;
  readonly project: Project;
  /** Opens the target that the configuration names, with where each connection value came from. */
  readonly openTarget: (
    name: string,
  ) => Promise<{ readonly target: Target; readonly origins: readonly ValueOrigin[] }>;
  /** Finds, reads, pins and binds a job for a target; nothing of it runs yet. */
  readonly prepareJob: (on: string, request: JobRequest, given: readonly string[]) => Promise<PreparedJob>;
  readonly machineEvidence: () => readonly Evidence[];
  /** Login, host and CI facts for the statement: claims, never proof. */
  readonly claims: () => Readonly<Record<string, string>>;
  /** The ledger of the store; created on first use only by operations that may. */
  readonly ledger: () => Promise<LedgerStore>;
  readonly plans: PlanShelf;
  readonly snapshots: SnapshotShelf;
  /** A fresh working ChangeSet in the store; removed when it is closed. */
  readonly workingChanges: () => Promise<ChangesWriter>;
  /** Refuses a store that lies inside one of these paths, or the other way round. */
  readonly assertStoreOutside: (paths: readonly string[]) => Promise<void>;
  /** `--key`, else an agent or `~/.ssh` key that the people know; ERR_KEY_MISSING names what was tried. */
  readonly findKey: (keyFlag: string | undefined, namespace: string) => Promise<SigningKey>;
  /** Bundles by digest, kept so that a refusal can say what differs. */
  readonly bundles: {
    readonly keep: (digest: Digest, bytes: Uint8Array) => Promise<void>;
    readonly find: (digest: Digest) => Promise<TrustBundle | null>;
  };
  readonly progress: Progress;
  /** Asked between the steps of a write. */
  readonly interruption: Interruption;
}

/** A plan that was read, verified and loaded. Close it in `finally`. */
export interface LoadedPlan {
  readonly id: string;
  readonly digest: Digest;
  readonly statement: PlanStatement;
  readonly path: string;
  readonly signature: Uint8Array | null;
  readonly changes: WorkingChanges;
  readonly close: () => void;
}
