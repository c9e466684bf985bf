/**
 * Everything an operation may reach, as records of functions. Built once in `cli/wiring.ts`; operations
 * import neither adapters nor machine nor storage. Nothing here is a singleton.
 */
import type { PlanStatement } from "../approval/plan-statement.js";
import type { CiProvider } from "../approval/ci-identity.js";
import type { CiMapping } from "../approval/requesters.js";
import type { Person } from "../approval/requirement.js";
import type { TrustBundle } from "../approval/bundle.js";
import type { VerifiedSignature } from "../approval/sshsig.js";
import type { Clock, Random } from "../base/clock.js";
import type { Digest } from "../base/digest.js";
import type { Change, ChangeSink, ChangeSource, RowKey, TableShape } from "../changeset/change.js";
import type { Measured } from "../changeset/encode.js";
import type { TieSource } from "../changeset/ties.js";
import type { Value } from "../changeset/value.js";
import type { Deal } from "../changeset/waves.js";
import type { Config, Purpose } from "../config/config.js";
import type { SystemPin } from "../config/system-pins.js";
import type { Evidence } from "../environment/evidence.js";
import type { JobRequest, PreparedJob } from "../jobs/job.js";
import type { LedgerStore } from "../ledger/entry.js";
import type { CompiledPolicies } from "../policy/compile.js";
import type { PrepareAssertion } from "../policy/lint-assertions.js";
import type { FileContent, SnapshotManifest } from "../snapshot/snapshot.js";
import type { DumpFacts } from "../target/dump.js";
import type { Target } from "../target/target.js";
import type { MachineProbe } from "./checkup/finding.js";
import type { Interruption } from "./writing/interruption.js";

export type { JobRequest, PreparedJob } from "../jobs/job.js";

/** Where a connection value came from: shown, because inherited values mislead. */
export interface ValueOrigin {
  readonly part: string;
  readonly from: string;
  readonly inherited: boolean;
  /** Whether an inherited value was there when the parent process began, or was set since; null where nobody can tell. */
  readonly age?: "before-parent" | "since" | null;
}

/** The project around the working directory: its configuration, people and policies, read and checked. */
export interface Project {
  readonly config: Config;
  readonly people: readonly Person[];
  /** How names of CI and git map to people; null where the project names none. */
  readonly ci: CiMapping | null;
  readonly policies: CompiledPolicies;
  /** The trust bundle that guards one target. */
  readonly bundleFor: (target: string) => TrustBundle;
}

/** A ChangeSet in its working form: a fresh SQLite file of ours that can be asked in SQL. */
export interface WorkingChanges extends TieSource {
  readonly path: string;
  readonly get: (table: string, key: RowKey) => Change | undefined;
  /** A change by its place; see `SampleSource`. */
  readonly nth?: (table: string, place: number) => Change | undefined;
  /** Measures the changes and keeps their canonical stream, which is put into the plan's file later. */
  readonly packed?: (also?: ChangeSink) => Measured;
  /** The changes in canonical order, cut into parts of so many each; absent where they are a part of a file themselves. */
  readonly slices?: (sizes: Iterable<number>) => Iterable<ChangeSource>;
  /** The changes as they are dealt into transactions, one after the other; absent like `slices`. */
  readonly dealt?: (deal: Deal) => Iterable<ChangeSource>;
  readonly query: (
    sql: string,
    limits: { readonly maxRows: number; readonly maxMs: number },
  ) => Promise<QueryAnswer>;
  /** Keys, as `keyText` writes them, of a table's changes that satisfy a predicate in SQL. */
  readonly keysWhere: (
    table: string,
    predicate: string,
    limits: { readonly maxRows: number; readonly maxMs: number },
  ) => Promise<ReadonlySet<string>>;
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
  /** Adds the inverse of all changes of a file whose rows are all plain; false where one is not, and nothing is added. */
  readonly addInverse?: (of: ChangeSource) => boolean;
  /** Takes a change out again; one that is not there is left out already. */
  readonly drop: (table: string, key: RowKey) => void;
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
  /** The digest of the ChangeSet's stream, without taking it apart into rows. */
  readonly streamDigest: () => Promise<Digest>;
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
  /** Puts the proof into a stored plan that has none. */
  readonly prove: (plan: {
    readonly id: string;
    readonly statement: Uint8Array;
    readonly signature: Uint8Array;
    readonly source: ChangeSource;
  }) => Promise<string>;
  /** By id, unique prefix or file. */
  readonly read: (ref: string) => Promise<PlanFile>;
  readonly ids: () => Promise<readonly string[]>;
  /** Destroys a stored plan and its rows. */
  readonly forget: (id: string) => void;
}

/** What a caller knows of a snapshot before it is taken. */
export type SnapshotFacts = Omit<
  SnapshotManifest,
  "format" | "tables" | "rows" | "content" | "file" | "dump"
>;

/** A snapshot in the working form of its rows. Close it in `finally`. */
export interface OpenSnapshot {
  readonly manifest: SnapshotManifest;
  readonly source: WorkingChanges;
  readonly close: () => void;
}

/** Before-images packed beforehand: a sink for changes in canonical order. Call `drop` in `finally`. */
export interface BeforeImagesKept extends ChangeSink {
  /** What was packed; null where that failed. */
  readonly packed: () =>
    | (Measured & { readonly blocks: () => Iterable<Uint8Array>; readonly remove: () => void })
    | null;
  readonly drop: () => void;
}

/** How a snapshot is. */
export type SnapshotCheck =
  | { readonly ok: true; readonly manifest: SnapshotManifest; readonly digest: Digest }
  | { readonly ok: false; readonly why: string };

/** The store's snapshots. Each is named by its id or a unique beginning; `expected` is the manifest's digest from the ledger. */
export interface SnapshotShelf {
  /** Writes, closes, reads back and compares; ERR_SNAPSHOT_UNVERIFIED when they differ. */
  readonly take: (
    facts: SnapshotFacts,
    before: ChangeSource,
    covered?: readonly TableShape[],
    /** The before-images of the same changes, packed while these passed. */
    kept?: BeforeImagesKept,
  ) => Promise<{ readonly manifest: SnapshotManifest; readonly digest: Digest }>;
  /** Packs the before-images of changes that pass, for a snapshot that may be taken of them later. */
  readonly keep: () => BeforeImagesKept;
  /** Keeps a database file by its pages, or a dump, and restores and checks it in a scratch file; a dump by `prove`. */
  readonly takeFile: (
    facts: SnapshotFacts,
    path: string,
    content: FileContent,
    prove?: (restored: string) => Promise<void>,
  ) => Promise<{
    readonly manifest: SnapshotManifest;
    readonly digest: Digest;
    readonly storedBytes: number;
    readonly added: number;
  }>;
  /** Loads rows and checks all of them on the way. */
  readonly open: (ref: string, expected?: Digest) => Promise<OpenSnapshot>;
  /** Puts a database together at a free path and checks it. */
  readonly restoreFile: (ref: string, path: string, expected?: Digest) => Promise<SnapshotManifest>;
  /** Writes rows into a fresh SQLite file at a free path. */
  readonly restoreRows: (ref: string, path: string, expected?: Digest) => Promise<SnapshotManifest>;
  /** Reads a snapshot whole and compares; damage is an answer. */
  readonly verify: (ref: string, expected?: Digest) => Promise<SnapshotCheck>;
  /** Of each its manifest; `hasPages` where it is a database, kept in pages that others may share. */
  readonly list: () => Promise<
    readonly { readonly id: string; readonly check: SnapshotCheck; readonly hasPages: boolean }[]
  >;
  readonly prune: (
    ids: readonly string[],
    neededBy: (id: string) => readonly string[],
    options: { readonly evenIfNeeded: boolean; readonly now?: Date },
  ) => Promise<{
    readonly removed: readonly string[];
    readonly kept: readonly { readonly id: string; readonly neededBy: readonly string[] }[];
  }>;
}

/** A private folder for copies, inside the store. Remove it in `finally`. */
export interface ScratchFolder {
  readonly path: string;
  readonly remove: () => void;
}

/** Which runs touched a row, by digests of rows; it can be lost without harm to anything else. */
export interface RowIndexShelf {
  readonly indexRun: (run: string, source: ChangeSource) => void;
  /** In the order in which they were indexed. */
  readonly runsOf: (table: string, key: RowKey) => readonly string[];
  readonly forget: (run: string) => void;
}

/** A key that can sign here. */
export interface SigningKey {
  readonly fingerprint: string;
  /** The person whom the bundle knows by this key; null when it knows none. */
  readonly person: string | null;
  /** An SSHSIG blob, in the namespace that the key was found for where none is named. */
  readonly sign: (bytes: Uint8Array, namespace?: string) => Promise<Uint8Array>;
}

/** A key that lies here, in the agent or as a public key file; whether it can sign is another question. */
export interface ReachableKey {
  readonly source: "agent" | "file";
  /** The file's path, or the agent's comment. */
  readonly where: string;
  /** The key, and the certificate where it is one: what decides whose it is. */
  readonly signer: Pick<VerifiedSignature, "key" | "certificate">;
}

/** What was found on this machine, and what could not be used. */
export interface KeysInReach {
  readonly keys: readonly ReachableKey[];
  /** One line for each thing that is no usable key: an agent that does not answer, a key type that is refused. */
  readonly problems: readonly string[];
}

/** Who CI and git say is behind a plan. */
export interface CiFacts {
  readonly commit: string | null;
  readonly people: readonly string[];
  readonly missing: readonly string[];
}

/** What a CI gives; `outside` where this is none. */
export type CiTokenAnswer =
  | { readonly kind: "outside" }
  | { readonly kind: "none"; readonly ci: string; readonly why: string }
  | { readonly kind: "token"; readonly ci: CiProvider; readonly token: Uint8Array };

/** Lines about what is going on, for stderr. */
export interface Progress {
  /** Something of unknown length begins; the returned function ends it. */
  readonly begin: (what: string) => (done?: string) => void;
  /** A check that passed. */
  readonly check: (what: string, took?: string) => void;
  /** How far a run's waves are. */
  readonly wave: (state: WaveProgress) => void;
}

/** How far a run is, for the line that tells it. */
export interface WaveProgress {
  readonly wave: number;
  readonly waves: number;
  readonly rows: number;
  readonly ofRows: number;
  /** Rows a second; null while that means nothing. */
  readonly rate: number | null;
  readonly lagSeconds: number | null;
  /** Why it waits; null when it does not. */
  readonly paused: string | null;
  readonly checks: { readonly passed: number; readonly of: number } | null;
  readonly done: boolean;
}

/** How a check, a hook or the reading of a collector ended. */
export type GuardOutcome =
  | { readonly kind: "passed"; readonly output: string }
  | { readonly kind: "failed"; readonly why: string };

/** Where dumps of targets are restored to be looked at. */
export interface DumpShelf {
  /** Asks before a dump is made; IntegrityError ERR_SNAPSHOT_UNVERIFIED (36) where it could be restored nowhere. */
  readonly assertRestorable: (of: string) => Promise<void>;
  /**
   * Restores the dump at `path`, holds every table's rows against what was counted, and opens it as a target, whose
   * database is gone when it is closed. Files that this needs lie beside the dump.
   * @throws IntegrityError ERR_SNAPSHOT_UNVERIFIED (36).
   */
  readonly open: (path: string, of: string, facts: DumpFacts) => Promise<Target>;
}

/** What an operation works with. */
export interface Toolbox {
  readonly clock: Clock;
  readonly random: Random;
  readonly project: Project;
  /**
   * Opens the target that the configuration names, with where each connection value came from. By the connection that
   * plans where it names two, unless something is to be written.
   */
  readonly openTarget: (
    name: string,
    purpose?: Purpose,
  ) => Promise<{ readonly target: Target; readonly origins: readonly ValueOrigin[] }>;
  /** Finds, reads, pins and binds a job for a target; nothing of it runs yet. */
  readonly prepareJob: (on: string, request: JobRequest, given: readonly string[]) => Promise<PreparedJob>;
  readonly machineEvidence: (target: string, purpose?: Purpose) => readonly Evidence[];
  /** Login, host and CI facts for the statement: claims, never proof. */
  readonly claims: () => Readonly<Record<string, string>>;
  /**
   * Who is behind a pipeline's run since a commit, or who touched `path` where there is none; null outside of CI.
   * Claims, which only ever widen the requesters.
   */
  readonly ciFacts: (since: string | null, path: string | null) => Promise<CiFacts | null>;
  /**
   * A token of this machine's CI for one audience. A bearer's proof: it goes into the plan that it proves and nowhere else.
   * Never throws.
   */
  readonly ciToken: (audience: string) => Promise<CiTokenAnswer>;
  /** The ledger of the store; created on first use only by operations that may. */
  readonly ledger: () => Promise<LedgerStore>;
  readonly plans: PlanShelf;
  /**
   * Checks every byte of a plan, named as for {@link PlanShelf.read}, in a process of its own that has no environment, and
   * may read nothing but the program and the plan.
   * @throws as `checkPlan` in that process; ERR_PLAN_UNCHECKED (35) where it ends without an answer.
   */
  readonly verifyApart: (ref: string) => Promise<void>;
  readonly snapshots: SnapshotShelf;
  /** A fresh private folder in the store. */
  readonly scratch: () => ScratchFolder;
  /** Opens a private copy of a target as a target of its own, under the settings of the one it is a copy of. */
  readonly openCopy: (path: string, of: string) => Promise<Target>;
  /** Dumps of a target, restored into a database of their own. */
  readonly dumps: DumpShelf;
  /** Opened on first use. */
  readonly rowIndex: () => Promise<RowIndexShelf>;
  /** A fresh working ChangeSet in the store; removed when it is closed. */
  readonly workingChanges: () => Promise<ChangesWriter>;
  /** Refuses a store that lies inside one of these paths, or the other way round. */
  readonly assertStoreOutside: (paths: readonly string[]) => Promise<void>;
  /** `--key`, else an agent or `~/.ssh` key that the people know; ERR_KEY_MISSING names what was tried. */
  readonly findKey: (keyFlag: string | undefined, namespace: string) => Promise<SigningKey>;
  /** The keys of the agent and of `~/.ssh`, or the one that `--key` names. Signs nothing. */
  readonly keysInReach: (keyFlag: string | undefined) => Promise<KeysInReach>;
  /** What root pinned on this machine for a target of that name; null where nothing. */
  readonly systemPin: (target: string) => Promise<SystemPin | null>;
  /** Bundles by digest, kept so that a refusal can say what differs. */
  readonly bundles: {
    readonly keep: (digest: Digest, bytes: Uint8Array) => Promise<void>;
    readonly find: (digest: Digest) => Promise<TrustBundle | null>;
  };
  /**
   * Where the bytes that a job ran stand in this machine's checkout; null where they do not, or cannot be told. Looked up
   * here, never taken from a plan.
   */
  readonly committed: (job: {
    readonly path: string | null;
    readonly source: Digest;
  }) => Promise<{ readonly commit: string | null; readonly clean: boolean } | null>;
  /** Finds out whether questions in SQL could be asked of a plan's rows; asks none. */
  readonly queryPreparer: () => Promise<PrepareAssertion>;
  /** What `doctor` asks this machine. */
  readonly probe: MachineProbe;
  readonly progress: Progress;
  /** Asked between the steps of a write. */
  readonly interruption: Interruption;
  /** Lets that much time pass; 0 lets signals in and goes on. */
  readonly wait: (ms: number) => Promise<void>;
  /** Runs a program that the trust bundle names, without shell, keys or credentials; never throws for how it ends. */
  readonly guard: (
    program: { readonly command: readonly string[]; readonly timeoutSeconds: number },
    data: Readonly<Record<string, string>>,
    /** Ends it early. */
    signal?: AbortSignal,
  ) => Promise<GuardOutcome>;
  /** Asks an address that the trust bundle names, without credentials; never throws for how it ends. */
  readonly readAddress: (url: string, timeoutSeconds: number, signal: AbortSignal) => Promise<GuardOutcome>;
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
