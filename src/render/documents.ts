/**
 * The shape of the `--json` documents as JSON Schema (draft 2020-12): `holdpoint schema NAME`. Fields are added within a
 * version, never renamed or removed, so a schema allows fields that it does not know. Contract: `docs/json-output.md`.
 */

import {
  answerAboutPlan,
  differenceOfPlans,
  OTHER_RESULTS,
  reviewOfRun,
  rowsOfPlan,
} from "./documents-of-reading.js";
import { flag, list, object, one, orNull, text, whole, type Schema } from "./schema-words.js";

const nextStep = object({
  actor: one("requester", "approver", "dba", "anyone"),
  "argv?": list(text),
  "text?": text,
});

const error = object({
  code: { type: "string", pattern: "^ERR_[A-Z_]+$" },
  what: text,
  "why?": text,
  "state?": text,
  next: list(nextStep),
  "details?": {},
});

const verdict = one("production", "staging", "development", "unproven");
const decision = one("allow", "needs-approval", "deny");

const requirement = object({
  slots: list(object({ people: whole, groups: list(text), rule: text })),
  touch: flag,
  "verified?": flag,
  reviewedInTool: flag,
  reason: flag,
});

const rule = object({
  rule: text,
  at: text,
  effect: one("allow", "require", "deny", "pass", "error"),
  because: text,
  saw: text,
  flips: text,
});

const counts = object({ table: text, insert: whole, update: whole, delete: whole });

const mark = one("OK", "LOOK", "STOP");
const slot = object({ slot: one("WHERE", "WHAT", "HOW MUCH", "ODD", "BACK"), text, mark });

const planFields = {
  plan: text,
  file: orNull(text),
  digest: text,
  decision,
  effect: object({ rows: whole, tables: list(counts) }),
  has_changes: flag,
  target: object({ name: text, environment: verdict, identity: orNull(text) }),
  requirement,
  "card?": orNull(object({ slots: list(slot), worst: mark })),
  expires_at: text,
};
const plan = object(planFields);

const evidence = object({
  source: text,
  side: one("target", "machine"),
  strength: one("strong", "medium", "none"),
  says: orNull(one("production", "staging", "development")),
  state: one("agrees", "absent", "contradicts", "informs"),
  detail: text,
  expected: orNull(text),
  found: orNull(text),
});

const undo = object({
  plan: orNull(text),
  run: orNull(text),
  counts: object({ put_back: whole, nothing_to_do: whole, merged: whole, conflict: whole }),
  conflicts: list(object({ table: text, key: {}, column: orNull(text), before: {}, wrote: {}, now: {} })),
});

const rescue = object({
  plan: orNull(text),
  run: orNull(text),
  snapshot: text,
  snapshot_at: text,
  rejected: list(object({ snapshot: text, at: text, why: text })),
  counts: object({
    put_back: whole,
    nothing_to_do: whole,
    merged: whole,
    conflict: whole,
    undecidable: whole,
    removed: whole,
    kept: whole,
    other: whole,
    born: whole,
  }),
  conflicts: list(object({ table: text, key: {}, column: orNull(text), before: {}, wrote: {}, now: {} })),
  removed: list(object({ table: text, key: {} })),
  born: list(object({ table: text, rows: whole })),
  resolutions: orNull(text),
});

const drill = object({
  snapshot: text,
  table: text,
  broken: whole,
  written: whole,
  restored: whole,
  lost: whole,
  missing: whole,
  take_ms: whole,
  restore_ms: whole,
  rescue_ms: whole,
});

const quorum = object({ people: whole, groups: list(text) });

const test = object({ name: text, at: text, passed: flag, decision, diff: list(text) });

const apply = object({
  run: orNull(text),
  rows: object({ planned: whole, written: whole }),
  snapshot: orNull(text),
});

/** The `result` of each command that publishes one. */
export const RESULTS: Readonly<Record<string, Schema>> = {
  plan,
  // `--rows`, `--sql` and `--against` answer something else than the plan itself.
  show: { anyOf: [plan, rowsOfPlan, answerAboutPlan, differenceOfPlans] },
  run: object({ ...planFields, run: orNull(text), applied: orNull(apply) }),
  approve: { anyOf: [object({ plan: text, person: orNull(text), token: orNull(text) }), reviewOfRun] },
  apply,
  ...OTHER_RESULTS,
  undo,
  rescue,
  "snapshot-take": object({
    snapshot: text,
    target: text,
    level: one("tables", "database"),
    tables: list(text),
    rows: whole,
    manifest: text,
    bytes: orNull(whole),
    stored_bytes: orNull(whole),
    took_ms: whole,
  }),
  "snapshot-drill": drill,
  "log-who": object({
    table: text,
    key: {},
    runs: list(object({ run: text, at: text, job: text, by: orNull(text), state: text })),
    now: {},
    snapshots: list(object({ snapshot: text, at: text, row: {} })),
    elsewhere: orNull(object({ after: text, before: text })),
  }),
  "env-check": object({
    target: text,
    verdict,
    guarded_as: one("production", "staging", "development"),
    contradicted: flag,
    because: list(text),
    evidence: list(evidence),
    origins: list(
      object({ part: text, from: text, inherited: flag, age: orNull(one("before-parent", "since")) }),
    ),
    description: text,
  }),
  "env-list": object({
    targets: list(object({ target: text, adapter: text, claims: text, identity: orNull(text), from: text })),
  }),
  // The first pin, its printed SQL, another pin prepared and written: each has fields of its own.
  "env-pin": object({
    target: text,
    pinned: flag,
    environment: one("production", "staging", "development"),
    "identity?": text,
    "bundle?": text,
    "ledger?": text,
    "sql?": list(text),
    "changes?": list(text),
    "quorum?": quorum,
    "file?": text,
    "expires_at?": text,
    "signed_by?": list(text),
  }),
  "trust-show": object({
    people: list(
      object({
        name: text,
        groups: list(text),
        keys: list(object({ type: text, fingerprint: text, namespaces: list(text) })),
      }),
    ),
    policies: list(object({ path: text, digest: text })),
    targets: list(object({ target: text, bundle: text, pinned: orNull(text), state: text })),
  }),
  "trust-propose": object({
    target: text,
    from: text,
    to: text,
    changes: list(text),
    quorum,
    signers: list(text),
    file: text,
    expires_at: text,
  }),
  "trust-accept": object({
    target: text,
    from: text,
    to: text,
    changes: list(text),
    signed_by: list(text),
  }),
  "policy-explain": object({
    plan: text,
    target: text,
    environment: verdict,
    requester: orNull(text),
    read: one("target", "plan"),
    decision,
    requirement,
    rules: list(rule),
    turning_points: list(object({ rule: text, at: text, rows: whole, now: whole })),
    what_if: orNull(object({ rows: whole, decision, rules: list(rule) })),
  }),
  "policy-test": object({
    tests: whole,
    failed: whole,
    files: list(object({ file: text, enabled: flag, tests: list(test) })),
  }),
  "policy-lint": object({
    errors: whole,
    warnings: whole,
    findings: list(object({ at: text, severity: one("error", "warning"), kind: text, what: text })),
  }),
  doctor: object({
    ok: whole,
    look: whole,
    stop: whole,
    findings: list(
      object({
        check: text,
        target: orNull(text),
        level: one("ok", "look", "stop"),
        what: text,
        todo: list(nextStep),
      }),
    ),
  }),
  "log-verify": object({ entries: whole, head: orNull(text), first_bad: orNull(whole) }),
};

/** What a command line that cannot be understood answers as: there is no command yet to name. */
const NO_COMMAND = "holdpoint";

/** The whole document of a command; undefined for one that publishes no result. */
export function documentSchema(command: string): Schema | undefined {
  if (command === EVENTS) return eventSchema();
  const known = Object.hasOwn(RESULTS, command) ? RESULTS[command] : undefined;
  const result = command === NO_COMMAND ? { type: "null" } : known;
  if (result === undefined) return undefined;
  const envelope = object({
    schema: { const: `holdpoint/${command}@1` },
    ok: flag,
    exit: object({ code: whole, name: text }),
    target_changed: one("no", "yes", "partly", "unknown"),
    result: orNull(result),
    error: orNull(error),
    warnings: list(text),
  });
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: `holdpoint ${command.replaceAll("-", " ")} --json, version 1`,
    ...envelope,
  };
}

/** The name under which {@link documentSchema} knows one line of `--events`. */
export const EVENTS = "events";

/** One line of `--events`. Readers pass over events and fields that they do not know, so a later version may send others. */
function eventSchema(): Schema {
  const event = (name: string, fields: Readonly<Record<string, Schema>>): Schema =>
    object({ event: { const: name }, at: text, ...fields });
  const known = [
    event("hello", { schema: { const: "holdpoint/events@1" } }),
    event("begin", { what: text }),
    event("done", { what: text, "words?": text }),
    event("check", { what: text }),
    event("wave", {
      wave: whole,
      waves: whole,
      rows: whole,
      of_rows: whole,
      rate: orNull({ type: "number" }),
      lag_seconds: orNull({ type: "number" }),
      paused: orNull(text),
      checks: orNull(object({ passed: whole, of: whole })),
      done: flag,
    }),
    event("result", {
      document: object({ schema: text, ok: flag, exit: object({ code: whole, name: text }) }),
    }),
  ];
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "holdpoint --events, one line, version 1",
    anyOf: known,
  };
}
