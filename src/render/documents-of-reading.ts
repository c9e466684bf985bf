/** Results of the commands that read, keep and set up, as JSON Schema; the rest stand in `documents.ts`. */
import { flag, list, object, one, orNull, type Schema, text, whole } from "./schema-words.js";

/** A row's cells by column; null for no row. Values as `docs/json-output.md` says. */
const image: Schema = { anyOf: [{ type: "object" }, { type: "null" }] };
const op = one("insert", "update", "delete");
const changedRow = object({ table: text, op, origin: text, count: whole, before: image, after: image });

/** `show --rows`. */
export const rowsOfPlan = object({ plan: text, rows: list(changedRow) });
/** `show --sql`. */
export const answerAboutPlan = object({
  plan: text,
  columns: list(text),
  rows: list({ type: "array" }),
  truncated: flag,
});
const differing = object({ total: whole, rows: list(changedRow) });
/** `show --against`. */
export const differenceOfPlans = object({
  plan: text,
  against: text,
  entered: differing,
  left: differing,
  changed: differing,
  same: whole,
});
/** `approve --review`. */
export const reviewOfRun = object({ run: text, person: text, reviewed: flag });

const runFields = {
  run: text,
  plan: text,
  target: text,
  state: one("started", "stopped", "failed", "done", "undone"),
  job: text,
  rows: whole,
  requester: orNull(text),
  approvers: list(text),
  break_glass: orNull(text),
  started_at: text,
  ended_at: orNull(text),
  cover_undo_until: orNull(text),
  snapshot: orNull(text),
  code: orNull(text),
  undone_by: orNull(text),
  rows_left: orNull(whole),
  undoes: list(text),
};
const run = object(runFields);

const standingPlan = object({
  plan: text,
  target: text,
  job: text,
  rows: whole,
  requester: orNull(text),
  state: text,
  approved_by: list(text),
  people_asked: whole,
  planned_at: text,
  expires_at: text,
  run: orNull(text),
});

const held = object({
  target: text,
  held: flag,
  by: text,
  reason: text,
  before: orNull(object({ by: text, at: text, reason: text })),
  except: list(text),
});

const level = one("rows", "tables", "database");
const kept = object({
  snapshot: text,
  target: text,
  at: text,
  level,
  tables: list(text),
  rows: whole,
  manifest: text,
  run: orNull(text),
});
const opened = object({
  snapshot: text,
  target: text,
  at: text,
  level,
  tables: list(text),
  rows: whole,
  bytes: orNull(whole),
  manifest: text,
  run: orNull(text),
  verified: flag,
});

const key = object({ type: text, fingerprint: text });

/** By command. */
export const OTHER_RESULTS: Readonly<Record<string, Schema>> = {
  reject: object({ plan: text, person: text, requester: orNull(text), anchored: flag }),
  revoke: object({ plan: text, person: text, revoked: whole, anchored: flag }),
  hold: held,
  release: held,
  status: object({ plans: list(standingPlan), runs: list(run), holds: list({ type: "object" }) }),
  log: object({
    runs: list(run),
    rejected: list(
      object({
        at: text,
        plan: text,
        target: text,
        job: text,
        requester: orNull(text),
        by: text,
        reason: text,
      }),
    ),
    revealed: list(
      object({
        at: text,
        plan: text,
        target: text,
        job: text,
        columns: list(text),
        by: text,
        reason: text,
      }),
    ),
    entries: whole,
    head: orNull(text),
  }),
  "log-show": object({
    run,
    entries: list(
      object({
        sequence: whole,
        at: text,
        kind: text,
        target: orNull(text),
        facts: { type: "object" },
        digest: text,
      }),
    ),
  }),
  "snapshot-list": object({ snapshots: list(kept) }),
  "snapshot-show": opened,
  "snapshot-verify": opened,
  "snapshot-diff": object({
    from: text,
    to: text,
    rows: whole,
    tables: list(object({ table: text, insert: whole, update: whole, delete: whole })),
  }),
  "snapshot-restore": object({ snapshot: text, file: text, level, rows: whole }),
  "snapshot-prune": object({
    removed: list(text),
    kept: list(object({ snapshot: text, needed_by: list(text) })),
  }),
  "snapshot-forget": object({ run: text, plan: text, snapshots: list(text) }),
  "key-list": object({
    people: list(object({ name: text, groups: list(text), keys: list(key) })),
    in_reach: list({ type: "object" }),
    problems: list(text),
  }),
  "key-check": object({
    fingerprint: text,
    person: orNull(text),
    groups: list(text),
    signed: flag,
    purposes: list(object({ namespace: text, state: text, why: orNull(text) })),
    problems: list(text),
  }),
  "env-list": object({
    targets: list(
      object({ target: text, adapter: text, claims: orNull(text), identity: orNull(text), from: text }),
    ),
  }),
  init: object({ files: list(object({ path: text, act: text })) }),
  // The JSON Schema that was asked for; what it may hold is JSON Schema's own affair.
  schema: { type: "object" },
  explain: object({ code: text, exit: object({ code: whole, name: text }), means: text, todo: text }),
  completion: { anyOf: [object({ shell: text, script: text }), object({ words: list(text) })] },
};
