/**
 * The plan's statement: the one value that decides everything about a plan. Its canonical bytes
 * (`base/canonical.ts`) are what the requester signs, what the plan's id is taken from and what an
 * approval names. Nothing that changes the effect stands outside it. Format page: `docs/formats/plan.md`.
 *
 * Apply believes nothing that it claims about itself: verdict, decision, counts and shares are computed
 * again from rows, target and pinned bundle.
 */
import type { Digest } from "../base/digest.js";

/** How the requester is known. */
export interface Requester {
  /** The person found by key in the bundle, or whom the token names; null when nobody is known. */
  readonly person: string | null;
  /** `SHA256:…` fingerprint of the signing key, as OpenSSH prints it; null where no key signed. */
  readonly key: string | null;
  /** `ssh-key`; `ci-token` for a pipeline that the bundle knows by its token; `none` where policy asks for no approval. */
  readonly how: "ssh-key" | "ci-token" | "none";
  /** Login, host and CI facts as the requester's machine tells them: shown, never trusted. */
  readonly claims: Readonly<Record<string, string>>;
}

/** What was run. */
export interface PlannedJob {
  readonly name: string;
  readonly kind: "sql" | "module" | "command";
  /** Digest of the file that was run; of the argument list's canonical form for a bare command. */
  readonly source: Digest;
  /** Path as given, for people. */
  readonly path: string | null;
  /** Typed parameters in their text form. */
  readonly parameters: Readonly<Record<string, string>>;
  /** Arguments of a command. */
  readonly arguments: readonly string[];
  /** False when some DELETE or UPDATE of an SQL job has no WHERE. A claim that can only make rules stricter. */
  readonly selective: boolean;
  /** Declared tables; null when none were declared. */
  readonly scope: readonly string[] | null;
  /** Declared counts: table → op → `[least, most]`; null when none were declared. */
  readonly expect: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>> | null;
  /** Which way the job says that its updates go; absent when it says nothing. */
  readonly direction?: readonly PlannedDirection[];
}

/** What a job declares of a column that it updates; what is null is not said. */
export interface PlannedDirection {
  readonly table: string;
  readonly column: string;
  /** Values in their text form; null among them is NULL. */
  readonly from: readonly (string | null)[] | null;
  readonly to: readonly (string | null)[] | null;
  readonly way: "up" | "down" | null;
}

/** Where the plan comes from when it is not a job's: which runs it takes back, which snapshot it draws on. */
export interface PlanOrigin {
  readonly kind: "undo" | "rescue";
  readonly runs: readonly string[];
  readonly plans: readonly Digest[];
  readonly snapshot: string | null;
  readonly manifest: Digest | null;
  /** Rows put back although others had changed other columns, and what was left alone. */
  readonly counts: {
    readonly put_back: number;
    readonly merged: number;
    readonly nothing_to_do: number;
    readonly conflict: number;
  };
  /** The whole run, each row exactly as it was written: what a covering approval allows. */
  readonly clean: boolean;
}

/** A table's share of the effect. */
export interface PlannedTable {
  readonly name: string;
  readonly insert: number;
  readonly update: number;
  readonly delete: number;
  /** Rows before the job; what shares are of. */
  readonly rows_before: number;
  readonly origin: "job" | "cascade" | "trigger" | "unknown";
}

/** The way back as the requester's machine tried it; an approver's machine tries it again. */
export interface PlannedUndo {
  readonly rehearsed: "all" | "sample" | "not";
  readonly identical: number;
  readonly of: number;
  /** Why not, or what came back different; without row values. */
  readonly why: string | null;
}

/** One bound value of a script's statement. Its type is told, so that it is bound the second time as it was the first. */
export interface ScriptValue {
  readonly type: "null" | "integer" | "real" | "text" | "blob";
  /** Digits, the shortest text of the real, the text itself, hexadecimal digits; empty for NULL. */
  readonly value: string;
}

/** One statement that runs again in mode script. */
export interface ScriptStatement {
  readonly text: string;
  /** 1-based line in the job's file, for errors; 0 where there was no file. */
  readonly line: number;
  readonly values: Readonly<Record<string, ScriptValue>>;
}

/** Format version 1. */
export interface PlanStatement {
  readonly format: "holdpoint-plan/1";
  readonly requester: Requester;
  readonly job: PlannedJob | null;
  readonly from: PlanOrigin | null;
  readonly target: {
    readonly name: string;
    readonly adapter: string;
    /** The marker's identity; null when the target was not pinned. */
    readonly identity: string | null;
    /** What the requester's machine found; recomputed at apply. */
    readonly verdict: "production" | "staging" | "development" | "unproven";
  };
  readonly rehearsal: {
    readonly where: "in-place" | "copy" | "clone" | "merge";
    readonly at: string;
    readonly lock_ms: number;
    /** The clone, where it ran on one. */
    readonly clone?: {
      readonly name: string;
      readonly identity: string | null;
      readonly place: Readonly<Record<string, string>>;
    };
    /** Whether the way back was rehearsed on the requester's side; absent where the target cannot. */
    readonly undo?: PlannedUndo;
  };
  readonly schema: {
    readonly fingerprint: Digest;
    readonly changes: readonly {
      readonly action: "create" | "drop" | "alter";
      readonly object: string;
      readonly name: string;
      /** The table that the object belongs to, where the target tells. */
      readonly table?: string;
      readonly before: string | null;
      readonly after: string | null;
      readonly undo: string;
    }[];
  };
  readonly settings: Readonly<Record<string, string>>;
  readonly mode: "rows" | "script";
  /** Mode script: the statements that run again, in one transaction, in this order. */
  readonly script: readonly ScriptStatement[];
  /** Shares of the rows after which checks run, e.g. `["1%", "10%", "100%"]`; null for one transaction. */
  readonly waves: readonly string[] | null;
  readonly pace: { readonly max_rows_per_second: number | null };
  /** Put a wave back when a check fails after it; absent where the run just stops. */
  readonly put_back?: true;
  readonly checks: readonly string[];
  readonly hooks: readonly string[];
  readonly snapshot: { readonly level: "rows" | "tables" | "database" };
  readonly bundle: Digest;
  readonly changeset: {
    /** Digest of the canonical stream (`docs/formats/changeset.md`). */
    readonly digest: Digest;
    readonly rows: number;
    readonly tables: readonly PlannedTable[];
  };
  readonly sequences: readonly { readonly name: string; readonly before: string; readonly after: string }[];
  readonly volatile: readonly { readonly table: string; readonly column: string; readonly rows: number }[];
  readonly notices: readonly string[];
  /** What the requester's policy run said; recomputed at apply. */
  readonly decision: "allow" | "needs-approval" | "deny";
  readonly reason: string | null;
  readonly ticket: string | null;
  readonly created_at: string;
  /** Nobody may apply it after this. */
  readonly expires_at: string;
  readonly ledger: { readonly id: string; readonly head: Digest } | null;
  /** Random: two plans of the same effect are two plans. */
  readonly nonce: string;
}
