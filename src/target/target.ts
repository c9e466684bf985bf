/**
 * What every adapter offers. One adapter per kind of target, the same file names in each; operations
 * see only this. An adapter never decides whether something is allowed: it identifies, rehearses,
 * reads and writes exactly, or says by name what it cannot hold.
 */
import type { Digest } from "../base/digest.js";
import type { Change, ChangeSink, ChangeSource, Origin, RowKey, TableShape } from "../changeset/change.js";
import type { SchemaTies } from "../changeset/ties.js";
import type { Row, Value } from "../changeset/value.js";
import type { Evidence } from "../environment/evidence.js";
import type { AnswerJob } from "./job-questions.js";
import type { Dumped } from "./dump.js";
import type { AnchoredHead, BatchMark, MarkedHistory, Marker, Note, SpentMark } from "./marker.js";
import type { VitalColumn, Vitals } from "./vitals.js";

/** What a kind of target can do; the default of a new adapter is the careful answer. */
export interface Capabilities {
  /** Schema changes roll back with the transaction. */
  readonly transactionalDdl: boolean;
  /** The engine can keep triggers and cascades silent while rows are written. */
  readonly silentTriggers: boolean;
  /** A number that a sequence gave out is given back with the transaction; else each run of a job gets others. */
  readonly sequencesRollBack: boolean;
}

/** Who the target says it is, before any comparison with what was pinned. */
export interface Identification {
  readonly marker: Marker | null;
  /** What the engine tells about the place now, under the same names as `Marker.place`. */
  readonly place: Readonly<Record<string, string>>;
  /**
   * What is equal exactly for the same database of the same running server, where the engine can tell that: an exact copy
   * elsewhere has the marker and perhaps the place, and not this.
   */
  readonly instance?: string;
  /** Signals besides marker and place: role, other clients, age of data … */
  readonly signals: readonly Evidence[];
  /** One line for people: `SQLite 3.53.2, /srv/state/elb.db, 6.1 MB, WAL`. */
  readonly description: string;
}

/** The meaning-changing state of a target's schema at one moment. */
export interface SchemaFacts {
  /** Covers schema, triggers, foreign keys, row security; our own tables left out. */
  readonly fingerprint: Digest;
  /** Connection settings that change what a job means, e.g. `{ "foreign_keys": "on" }`. */
  readonly settings: Readonly<Record<string, string>>;
  readonly tables: readonly TableShape[];
  /** Which rows belong together; absent where the adapter cannot tell, and then all of them do. */
  readonly ties?: SchemaTies;
}

/** A job as an adapter runs it. Statements are bound, never pasted. */
export type RunnableJob =
  | {
      readonly kind: "sql";
      readonly statements: readonly SqlStatement[];
    }
  | {
      /** Runs in a child, on a private copy whose address `run` receives; resolves when the child is done. */
      readonly kind: "program";
      readonly run: (copy: ProgramCopy) => Promise<void>;
      /**
       * The same without a copy: each statement of the program is asked of `answer`; resolves when the program is done.
       * Absent for a program that opens its database itself.
       */
      readonly converse?: (answer: AnswerJob) => Promise<void>;
    };

/** The private copy that a program works on. */
export interface ProgramCopy {
  readonly url: string;
  readonly path: string;
  /** What the program prints was seen when it ran before. */
  readonly quiet?: boolean;
}

/**
 * Whether a program runs a second time, so that values which differ from run to run are found: what it does outside of its
 * copy happens then twice. `if-quick`: where the first run was.
 */
export type Again = "always" | "if-quick" | "never";

/** One statement of a job with its values. */
export interface SqlStatement {
  readonly text: string;
  /** 1-based line in the job's file. */
  readonly line: number;
  /** By parameter name without its sigil; only the names that the statement uses. */
  readonly values: Readonly<Record<string, Value>>;
}

/** A change of the schema that the job makes. */
export interface SchemaChange {
  readonly action: "create" | "drop" | "alter";
  /** `table`, `index`, `trigger`, `view`. */
  readonly object: string;
  readonly name: string;
  /** The table that it belongs to; absent where the adapter does not tell. */
  readonly table?: string;
  /** The object's SQL before and after; null where there is none. */
  readonly before: string | null;
  readonly after: string | null;
  /** `yes` when undo can take it back; otherwise why not. */
  readonly undo: string;
}

/** A sequence that the job moved; shown, and at apply only ever moved forward. */
export interface SequenceMove {
  readonly name: string;
  readonly before: string;
  readonly after: string;
}

/** A column whose values differ from run to run; what is signed is what is written. */
export interface Volatile {
  readonly table: string;
  readonly column: string;
  readonly rows: number;
}

/** What a rehearsal is for. */
export interface RehearsalKind {
  /** The statements are to run again at apply, so values that differ from run to run must be known. */
  readonly script: boolean;
  /** Of a program; absent: it runs once, and nothing is said of it. */
  readonly again?: Again;
}

/** What a rehearsal found. The rows went into the sink. */
export interface Rehearsal {
  readonly where: "in-place" | "copy" | "clone";
  readonly schema: SchemaFacts;
  readonly schemaChanges: readonly SchemaChange[];
  readonly sequences: readonly SequenceMove[];
  readonly volatile: readonly Volatile[];
  /** Rows of each touched table before the job, for shares. */
  readonly rowsBefore: Readonly<Record<string, number>>;
  /** Where rows of a table come from, when all come from one place. */
  readonly origins: Readonly<Record<string, Origin>>;
  /** How long the target's write lock was held. */
  readonly lockMs: number;
  /** Things a reader should know, e.g. `INSERT OR REPLACE replaced 3 rows of backends`. */
  readonly notices: readonly string[];
}

/** Whether the way back was tried, and how many rows came back as they were. */
export interface UndoRehearsal {
  readonly rehearsed: "all" | "sample" | "not";
  readonly identical: number;
  readonly of: number;
  /** Why not, or what came back different; without row values. */
  readonly why: string | null;
}

/** How schema changes can be taken back: statements in their order, and what stays, in words. */
export interface SchemaUndo {
  readonly statements: readonly SqlStatement[];
  readonly left: readonly string[];
}

/** A row asked for by key. */
export interface ReadRow {
  readonly key: RowKey;
  readonly row: Row | null;
  /** For tables without a key: how many equal rows there are. */
  readonly count: number;
}

/** What cannot be written, found while writing: the run stops and nothing of the batch stays. */
export type WriteProblem =
  | { readonly kind: "drift"; readonly change: Change; readonly now: Row | null; readonly nowCount: number }
  | { readonly kind: "constraint"; readonly change: Change; readonly message: string }
  | {
      readonly kind: "foreign-key";
      readonly table: string;
      readonly message: string;
      /** The change that breaks it, where it is one that was written. */
      readonly change?: Change;
    };

/** How one batch went. */
export interface BatchOutcome {
  readonly written: number;
  /** Rows that were already as the plan leaves them. */
  readonly alreadyDone: number;
  readonly problems: readonly WriteProblem[];
}

/** What a script did that ran again inside the session's transaction; its rows went into the sink. */
export interface ScriptOutcome {
  readonly schemaChanges: readonly SchemaChange[];
  readonly sequences: readonly SequenceMove[];
}

/** A batch in which statements run: the connection means by its settings what the job's rehearsal meant. */
export interface BatchKind {
  readonly script: boolean;
  /** Of a program; absent: it runs once, and nothing is said of it. */
  readonly again?: Again;
}

/**
 * One run on the target: a held session in which batches are written. Each batch is one transaction that
 * reads identity again, checks before-images as it writes, and leaves its marks.
 */
export interface WriteSession {
  /** Starts a batch's transaction and takes the write lock within the adapter's bound (ERR_TARGET_BUSY). */
  readonly begin: (kind?: BatchKind) => Promise<void>;
  readonly marker: () => Promise<Marker | null>;
  readonly spentFor: (planDigest: Digest) => Promise<SpentMark | null>;
  readonly nonceSpent: (nonce: string) => Promise<boolean>;
  readonly notes: () => Promise<readonly Note[]>;
  readonly batches: (run: string) => Promise<readonly BatchMark[]>;
  readonly schema: () => Promise<SchemaFacts>;
  readonly readRows: (shape: TableShape, keys: Iterable<RowKey>) => AsyncIterable<ReadRow>;
  /**
   * Writes the changes with triggers and cascades silent, in an order the engine accepts. A row that is
   * neither as before nor as after is a problem; with problems the caller rolls back.
   * `source` is read several times.
   */
  readonly write: (
    source: {
      readonly tables: readonly TableShape[];
      readonly changes: (table: string) => Iterable<Change>;
    },
    sequences: readonly SequenceMove[],
  ) => Promise<BatchOutcome>;
  /** After {@link WriteSession.write}, before commit: every row as the plan leaves it, no other row changed. */
  readonly verify: (source: {
    readonly tables: readonly TableShape[];
    readonly changes: (table: string) => Iterable<Change>;
  }) => Promise<readonly WriteProblem[]>;
  /**
   * Runs the statements in the open transaction and captures their net effect, schema changes included, as a rehearsal
   * does; deferred constraints are checked at once. Nothing is compared here: the caller commits only an effect that
   * equals the signed one. Absent where a target has no transactional schema changes.
   */
  readonly runScript?: (statements: readonly SqlStatement[], sink: ChangeSink) => Promise<ScriptOutcome>;
  readonly spend: (mark: SpentMark) => Promise<void>;
  readonly markBatch: (mark: BatchMark) => Promise<void>;
  /** Takes back the marks of a wave whose rows are put back in the same transaction. */
  readonly clearMarks: (run: string, wave: number) => Promise<void>;
  readonly addNote: (note: Note) => Promise<void>;
  readonly anchor: (head: AnchoredHead) => Promise<void>;
  readonly commit: () => Promise<void>;
  readonly rollback: () => Promise<void>;
  readonly close: () => Promise<void>;
}

/**
 * What a connection's role is used for: to read a target whose jobs are rehearsed elsewhere, to rehearse on the target
 * itself, or to write what was planned.
 */
export type RoleUse = "look" | "rehearse" | "write";

/** One privilege, as the target answers for the role that asked. */
export interface PrivilegeCheck {
  /** For which use; the first that needs it. */
  readonly use: RoleUse;
  /** `INSERT, DELETE on public.orders`. */
  readonly what: string;
  readonly held: boolean;
  /** What is refused, or what is done without, where it is not held. */
  readonly without: string;
  /** True: commands refuse without it. False: they go on, with less. */
  readonly needed: boolean;
  /** The exact statements that give what is missing. */
  readonly grant: string;
}

/** What the role of a connection may do. */
export interface RolePrivileges {
  readonly role: string;
  readonly checks: readonly PrivilegeCheck[];
  /** Rights that nothing of this use needs, in words; none where the role is what it should be. */
  readonly beyond: readonly string[];
}

/** What writes notes beside a run. */
export type NoteSession = Pick<
  WriteSession,
  "begin" | "addNote" | "anchor" | "commit" | "rollback" | "close"
>;

/** An open target. Close it in `finally`. */
export interface Target {
  readonly name: string;
  readonly adapter: string;
  readonly capabilities: Capabilities;
  readonly identify: () => Promise<Identification>;
  readonly schema: () => Promise<SchemaFacts>;
  /** The time by the target's own clock; absent where it has none but this machine's. */
  readonly clock?: () => Promise<Date>;
  /** Runs the job where nothing is kept and puts its net effect into `sink`. Leaves the target equal. */
  readonly rehearse: (job: RunnableJob, sink: ChangeSink, how?: RehearsalKind) => Promise<Rehearsal>;
  /**
   * Writes the changes and takes them back where nothing is kept, and compares every row with its image before.
   * Absent where a target cannot: then the way back counts as not rehearsed. `there` is told what stood in the way of writing
   * the changes themselves, once they were tried: nothing, or rows and references.
   */
  readonly rehearseUndo?: (
    source: ChangeSource,
    script?: readonly SqlStatement[],
    there?: (problems: readonly WriteProblem[]) => void,
  ) => Promise<UndoRehearsal>;
  /** The statements that take schema changes back as things stand now; absent where a target knows none. */
  readonly undoSchema?: (changes: readonly SchemaChange[]) => Promise<SchemaUndo>;
  /** Rows by key, as they are now. */
  readonly readRows: (shape: TableShape, keys: Iterable<RowKey>) => AsyncIterable<ReadRow>;
  /**
   * Whether every row of the changes is exactly as that image says, to the bit and in every cell, where the target can
   * tell without handing rows over. False says nothing: the rows are then read. Absent where a target cannot.
   */
  readonly holdsAll?: (source: ChangeSource, image: "before" | "after") => Promise<boolean>;
  /** All rows of a table in key order. */
  readonly scan: (shape: TableShape) => AsyncIterable<Row>;
  /**
   * The largest value that a column holds or, where the target counts its keys, has ever given out; null for none. Absent
   * where a kind of target cannot tell.
   */
  readonly largestOf?: (shape: TableShape, column: number) => Promise<Value>;
  readonly countRows: (table: string) => Promise<number>;
  /**
   * The keys of the rows that a transaction wrote as they are now, by the number that the target gave it. Reads the whole
   * table. Absent where a kind of target keeps no transaction of a row.
   * @throws UsageError ERR_USAGE for a number that no transaction of the target has, or that may be two.
   */
  readonly rowsWrittenBy?: (shape: TableShape, transaction: string) => AsyncIterable<RowKey>;
  /**
   * How many rows of a table hold each of these values in a column now, in the order of the values. Reads an index of the
   * column where there is one, else the table. Absent where a target cannot count so: then nobody knows.
   */
  readonly countByValue?: (
    table: string,
    column: string,
    values: readonly Value[],
  ) => Promise<readonly number[]>;
  /** What can be told of the target's life: how large it is, how new its newest rows are. Reads only. Absent: nothing. */
  readonly vitals?: (newest: readonly VitalColumn[]) => Promise<Vitals>;
  readonly spentFor: (planDigest: Digest) => Promise<SpentMark | null>;
  readonly notes: () => Promise<readonly Note[]>;
  readonly batches: (run: string) => Promise<readonly BatchMark[]>;
  /** The head of a ledger beside the one that pinned, as this target anchors it; null for a ledger that it does not know. */
  readonly anchoredHead: (ledger: string) => Promise<AnchoredHead | null>;
  readonly history: (of: { readonly job: string; readonly since: string }) => Promise<MarkedHistory>;
  /**
   * Answers one question in SQL with the first cell of its answer, read-only and beside everything else that goes on,
   * or throws when it is late or no question. Absent where a kind of target cannot.
   */
  readonly ask?: (sql: string, maxMs: number) => Promise<Value>;
  /** Seconds by which the target's copies are behind; null where it has none. Absent where a kind of target does not know. */
  readonly lagSeconds?: () => Promise<number | null>;
  /**
   * Asks for every privilege that these uses need, on these tables (names as in plans) or, where none is named, on those
   * that the role can already do something to. Absent where a kind of target knows no roles.
   */
  readonly privileges?: (
    uses: readonly RoleUse[],
    tables: readonly string[],
    /** Statements of jobs, as they are written: what they demand beyond rows is asked for too. */
    statements: readonly string[],
  ) => Promise<RolePrivileges>;
  /** The SQL that makes the marker, for `env pin --print-sql`. */
  readonly markerSql: (marker: Marker) => readonly string[];
  /** Writes the marker in one transaction; only `env pin` calls it. */
  readonly pin: (marker: Marker) => Promise<void>;
  /** Opens the one session that may write; ERR_TARGET_BUSY when another run has the target. */
  readonly openWriter: () => Promise<WriteSession>;
  /**
   * Reads as of one moment: everything that `work` reads through this target is one state, whoever writes meanwhile.
   * Absent where the kind of target cannot do that.
   */
  readonly atOneMoment?: <T>(work: () => Promise<T>) => Promise<T>;
  /** A private copy of the whole target, as of one moment, in a fresh folder; its path. Only where a target is a file. */
  readonly copyTo?: (folder: string) => Promise<string>;
  /**
   * A dump of the whole target by its own program, written to a free path, with what was counted in the same moment.
   * Only where a target has such a program.
   */
  readonly dumpTo?: (path: string) => Promise<Dumped>;
  /**
   * Tells `sink` what changed in these tables since the private copy at `path` was the target, both read as of one
   * moment, and returns how many rows the copy has of each. The shapes are the same on both sides. Null where the two
   * have to be read row by row, as where it is absent.
   */
  readonly changesSince?: (
    path: string,
    tables: readonly TableShape[],
    sink: ChangeSink,
  ) => Promise<ReadonlyMap<string, number> | null>;
  /**
   * A session for notes alone, also while a run has the target; absent where {@link Target.openWriter} never waits
   * for a run.
   */
  readonly openNotes?: () => Promise<NoteSession>;
  /** Paths that are the target itself; a store inside them would go down with it. */
  readonly ownPaths: () => readonly string[];
  readonly close: () => Promise<void>;
}
