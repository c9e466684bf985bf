/** One realistic view for every screen: load balancer state, a purge of idle back ends, what came of it. */
import { digestOf } from "../../src/base/digest.js";
import { RefusedError, TargetError } from "../../src/base/errors.js";
import type { Evidence, Verdict } from "../../src/environment/evidence.js";
import type { Decision } from "../../src/policy/decision.js";
import type { ApprovalEnd, ReviewView, SigningView } from "../../src/render/approve.js";
import type { ApplyView, CheckView } from "../../src/render/apply.js";
import { card, type CardFacts } from "../../src/render/card.js";
import type { DriftView } from "../../src/render/drift.js";
import type { EnvView } from "../../src/render/envcheck.js";
import type { ErrorView } from "../../src/render/error.js";
import type { PolicyView } from "../../src/render/explain-policy.js";
import type { InitView } from "../../src/render/init.js";
import type { LogView } from "../../src/render/log.js";
import type { MarkdownView } from "../../src/render/markdown.js";
import type { PatternView } from "../../src/render/patterns.js";
import type { PinView } from "../../src/render/pin.js";
import type { PlanView } from "../../src/render/plan.js";
import type { RowView } from "../../src/render/rows.js";
import type { StatusView } from "../../src/render/status.js";
import type { TrustView } from "../../src/render/trust.js";
import type { UndoView } from "../../src/render/undo.js";

const PLAN = "pl_k7q2m9xw3fh8c1vz";
const RUN = "rn_5c0e2fqa9d4k7m1x";

export const evidence: readonly Evidence[] = [
  {
    source: "marker",
    side: "target",
    strength: "strong",
    says: "production",
    state: "agrees",
    detail: "holdpoint_marker names elb-prod, sqlite:8f1c…77b1",
  },
  {
    source: "file identity",
    side: "target",
    strength: "strong",
    says: "production",
    state: "agrees",
    detail: "device 8:1, inode 1311, as at the pin",
  },
  {
    source: "write traffic",
    side: "target",
    strength: "medium",
    says: "production",
    state: "agrees",
    detail: "3 other processes have the file open",
  },
  {
    source: "NODE_ENV",
    side: "machine",
    strength: "none",
    says: "development",
    state: "contradicts",
    detail: "development",
  },
];

export const verdict: Verdict = {
  name: "production",
  guardedAs: "production",
  contradicted: false,
  because: ["the marker and the file identity of the pin agree"],
  evidence,
};

export const patterns: readonly PatternView[] = [
  {
    table: "listeners",
    op: "update",
    columns: [{ column: "status", from: "idle", to: "draining" }],
    rows: 1181,
  },
  {
    table: "listeners",
    op: "update",
    columns: [
      { column: "status", from: "idle", to: "draining" },
      { column: "note", from: null, to: "idle for 90 days" },
    ],
    rows: 21,
  },
  {
    table: "listeners",
    op: "update",
    columns: [{ column: "status", from: "active", to: "draining" }],
    rows: 2,
    note: "odd",
  },
  { table: "backends", op: "delete", columns: [], rows: 1240 },
  { table: "health_checks", op: "delete", columns: [], rows: 88, note: "by cascade" },
];

export const rows: readonly RowView[] = [
  {
    table: "listeners",
    op: "update",
    key: [{ column: "id", value: 48213n }],
    cells: [
      { kind: "changed", column: "status", before: "active", after: "draining" },
      { kind: "same", column: "owner", value: { kind: "masked", tag: "m1" } },
      { kind: "changed", column: "note", before: null, after: "" },
    ],
    unchanged: 14,
    count: 1,
    note: "rare change, 2 of 1,204",
  },
  {
    table: "listeners",
    op: "update",
    key: [{ column: "id", value: 50117n }],
    cells: [
      { kind: "changed", column: "status", before: "idle", after: "draining" },
      { kind: "same", column: "owner", value: { kind: "masked", tag: "m2" } },
      { kind: "changed", column: "note", before: null, after: "idle for 90 days" },
    ],
    unchanged: 14,
    count: 1,
  },
  {
    table: "backends",
    op: "delete",
    key: [
      { column: "balancer", value: "eu-7" },
      { column: "slot", value: 3n },
    ],
    cells: [
      { kind: "same", column: "address", value: "10.0.4.17" },
      { kind: "same", column: "weight", value: 1 },
      { kind: "same", column: "state", value: new Uint8Array([0, 255, 16]) },
      {
        kind: "same",
        column: "config",
        value: `{"timeouts":{"idle":30,"connect":5},"pools":["a","b","c"],"zone":"eu-west-1a"}`,
      },
    ],
    unchanged: 0,
    count: 1,
  },
];

export const decision: Decision = {
  kind: "needs-approval",
  requirement: {
    slots: [{ people: 1, groups: ["dba", "leads"], rule: "prod-write" }],
    touch: false,
    reviewedInTool: false,
    reason: false,
  },
  rules: [
    {
      rule: "prod-write",
      at: "policies/production.yaml:12",
      effect: "require",
      because: "production target: 1 other person of dba or leads",
      saw: "environment production, 2,532 rows",
      flips: "on staging",
    },
    {
      rule: "max-share",
      at: "policies/production.yaml:41",
      effect: "pass",
      because: "no table loses more than 25 %",
      saw: "",
      flips: "",
    },
    {
      rule: "business-hours",
      at: "policies/production.yaml:55",
      effect: "pass",
      because: "Tue 14:20 UTC is inside Mon-Thu 08:00-16:00",
      saw: "",
      flips: "",
    },
  ],
};

export const denied: Decision = {
  kind: "deny",
  requirement: { slots: [], touch: false, reviewedInTool: false, reason: false },
  rules: [
    {
      rule: "max-share",
      at: "policies/production.yaml:41",
      effect: "deny",
      because: "backends: deletes 63 % of the table, limit 25 %",
      saw: "3,725 of 5,912 rows deleted",
      flips: "at 1,478 rows or fewer",
    },
    ...decision.rules.filter((r) => r.rule !== "max-share"),
  ],
};

export const facts: CardFacts = {
  target: "elb-prod",
  description: "SQLite 3.53, 6.1 MB, WAL",
  verdict: "production",
  contradicted: false,
  evidence,
  readHere: true,
  planned: { verdict: "production", samePlace: true },
  tables: [
    {
      name: "listeners",
      insert: 0,
      update: 1204,
      delete: 0,
      rowsBefore: 131_870,
      origin: "job",
      columns: ["status", "note"],
    },
    {
      name: "backends",
      insert: 0,
      update: 0,
      delete: 1240,
      rowsBefore: 24_800,
      origin: "job",
      columns: [],
    },
  ],
  patterns,
  schemaChanges: 0,
  requestedBy: "person",
  source: "committed",
  againstDirection: [],
  externalEffects: [],
  expect: { backends: { delete: [1, 5000] }, listeners: { update: [1150, 1300] } },
  guess: null,
  sums: [],
  odd: { rules: 1, rows: 2444, findings: [] },
  undo: { rehearsed: { kind: "all", identical: 2444, of: 2444 }, irreversible: [] },
};

export const troubled: CardFacts = {
  ...facts,
  tables: [
    ...facts.tables,
    {
      name: "health_checks",
      insert: 0,
      update: 0,
      delete: 88,
      rowsBefore: 2000,
      origin: "cascade",
      columns: [],
    },
  ],
  odd: {
    rules: 1,
    rows: 2532,
    findings: [{ rule: "rare-transition", rows: 2, words: "were active, 2 of 1,204" }],
  },
};

export const planView: PlanView = {
  banner: { verdict: "production", target: "elb-prod", note: "3/3 signals agree, nothing kept" },
  inherited: ["${ELB_PROD_URL}, inherited: environment variable ELB_PROD_URL (holdpoint.yaml:3:10)"],
  id: PLAN,
  file: ".holdpoint/plans/pl_k7q2m9xw3fh8c1vz.hpplan",
  effect: [
    {
      table: "listeners",
      op: "update",
      rows: 1204,
      rowsBefore: 131_870,
      columns: ["status", "note"],
      origin: "job",
    },
    { table: "backends", op: "delete", rows: 1240, rowsBefore: 24_800, columns: [], origin: "job" },
    { table: "health_checks", op: "delete", rows: 88, rowsBefore: 2000, columns: [], origin: "cascade" },
  ],
  expectation: "Expected 1,150..1,300 updates of listeners and 1..5,000 deletes of backends: inside.",
  card: null,
  odd: { rows: rows.slice(0, 1), total: 2 },
  patterns,
  sample: rows,
  schemaChanges: [],
  sequences: [{ name: "audit_id", before: "411", after: "412" }],
  volatile: [],
  notices: ["INSERT OR REPLACE replaced 3 rows of backends"],
  decision,
  bundle: "bundle 9c1e…2ab0",
  undo: "row by row, from the before-images that apply keeps",
  expiresAt: "2026-11-25T14:20:00Z",
  next: [{ actor: "approver", argv: ["holdpoint", "approve", PLAN] }],
};

export const emptyPlanView: PlanView = {
  ...planView,
  banner: { verdict: "staging", target: "elb-staging" },
  effect: [],
  expectation: null,
  odd: { rows: [], total: 0 },
  patterns: [],
  sample: [],
  sequences: [],
  notices: [],
  decision: { ...decision, kind: "allow", rules: [] },
  next: [],
};

export const reviewView: ReviewView = {
  banner: {
    verdict: "production",
    target: "elb-prod",
    note: "3/3 signals agree; re-read 4 s ago, no drift",
  },
  card: card(troubled),
  odd: rows.slice(0, 1),
  patterns,
  sample: rows.slice(1),
  rows: 2532,
  against: "Against pl_m3w8x1tf0a2b4c6d: 3 rows of listeners left the plan, nothing entered it.",
};

export const signingView: SigningView = {
  planDigest: digestOf("plan"),
  target: "elb-prod",
  environment: "production",
  requester: "dana",
  expiresAt: "2026-11-24T18:20:00Z",
  coverUndo: "48h",
};

export const approvalEnd: { readonly end: ApprovalEnd; readonly next: [] } = {
  end: {
    kind: "signed",
    plan: PLAN,
    approver: "ravi",
    reviewedSeconds: 112,
    wrongAnswers: 0,
    where: "on stdout",
  },
  next: [],
};

export const checkViews: readonly CheckView[] = [
  { kind: "check", what: "approval: right plan, known signer, not the requester, unused", result: "ok" },
  { kind: "check", what: "2,532 of 2,532 rows are as planned", result: "ok", seconds: 3.1 },
  {
    kind: "snapshot",
    what: "sn_90dkv3mh: 2,532 rows saved, read back, compared",
    result: "ok",
    seconds: 6.4,
  },
  { kind: "verify", what: "rows after the write", result: "failed" },
];

export const applyView: ApplyView = {
  banner: { verdict: "production", target: "elb-prod" },
  end: {
    kind: "done",
    seconds: 41,
    written: 2532,
    alreadyDone: 0,
    run: RUN,
    snapshot: "sn_90dkv3mh7c5d2e1f",
    undoCover: "a clean undo is already approved until 26 Nov 2026 14:39 UTC",
  },
  next: [{ actor: "anyone", argv: ["holdpoint", "undo", RUN] }],
};

export const stoppedView: ApplyView = {
  banner: { verdict: "production", target: "elb-prod" },
  end: { kind: "stopped", written: 1516, of: 2526, run: RUN },
  next: [
    {
      actor: "requester",
      argv: ["holdpoint", "apply", "--resume", RUN],
      text: "finish under the same approval",
    },
    { actor: "requester", argv: ["holdpoint", "undo", RUN], text: "put the 1,516 rows back" },
  ],
};

export const driftView: DriftView = {
  error: new TargetError({
    code: "ERR_DRIFT_ROWS",
    message: "elb-prod moved since this plan was made: 6 of 2,532 rows are not as planned",
    why: "4 listeners were edited, 2 back ends are gone",
    state: "Nothing was written. The approval is unused, and stands for the old rows only.",
    next: [{ actor: "requester", argv: ["holdpoint", "plan", "purge-idle", "--on", "elb-prod"] }],
  }),
  plannedAt: "2026-11-24T14:20:00Z",
  nowAt: "2026-11-24T15:47:00Z",
  groups: [
    { rows: 4, what: "listeners.status idle → active", matters: true, why: "would drain listeners in use" },
    { rows: 1, what: "listeners.hits 311 → 312", matters: false, why: "column not touched" },
  ],
  rows: [
    {
      table: "listeners",
      key: [{ column: "id", value: 48213n }],
      column: "status",
      planned: "idle",
      now: "active",
    },
    { table: "backends", key: [{ column: "id", value: 7n }], column: null, planned: null, now: null },
  ],
};

export const undoView: UndoView = {
  banner: { verdict: "production", target: "elb-prod", note: `undo of ${RUN}, dana, 24 Nov 14:38` },
  run: RUN,
  counts: { put_back: 2511, nothing_to_do: 4, merged: 8, conflict: 3, gone: 1 },
  byTenant: [
    { table: "orders", column: "tenant", tenant: 7n, rows: 2 },
    { table: "orders", column: "tenant", tenant: "x", rows: 1 },
  ],
  conflicts: [
    {
      kind: "changed",
      table: "listeners",
      key: [{ column: "id", value: 50117n }],
      column: "status",
      before: "idle",
      wrote: "draining",
      now: "closed",
    },
    {
      kind: "changed",
      table: "listeners",
      key: [{ column: "id", value: 50984n }],
      column: "note",
      before: "",
      wrote: "idle for 90 days",
      now: "call them first",
    },
    {
      kind: "two-entities",
      table: "backends",
      key: [{ column: "id", value: 77120n }],
      column: null,
      before: { kind: "row", exists: true },
      wrote: { kind: "row", exists: false },
      now: { kind: "row", exists: true },
    },
  ],
  end: { kind: "conflict", resolutions: "conflicts.yaml" },
  next: [
    {
      actor: "requester",
      argv: ["holdpoint", "undo", RUN, "--on-conflict", "keep-now"],
      text: "put back 2,519, leave these 3",
    },
    {
      actor: "requester",
      argv: ["holdpoint", "undo", RUN, "--resolutions", "conflicts.yaml"],
      text: "decide each",
    },
  ],
};

export const logView: LogView = {
  lines: [
    {
      at: "2026-11-24T14:38:44Z",
      run: RUN,
      target: "elb-prod",
      job: "purge-idle",
      rows: 2532,
      requester: "dana",
      approvers: ["ravi"],
      result: "done, undo until 26 Nov",
    },
    {
      at: "2026-11-24T14:12:00Z",
      run: null,
      target: "elb-prod",
      job: "purge-idle",
      rows: null,
      requester: "dana",
      approvers: ["ravi"],
      result: "rejected",
    },
  ],
  chain: { kind: "intact", entries: 1882, head: "7d0f…01e1" },
  next: [{ actor: "anyone", argv: ["holdpoint", "log", "show", "RUN"] }],
};

export const policyView: PolicyView = {
  banner: { verdict: "production", target: "elb-prod" },
  plan: PLAN,
  decision: denied,
  bundle: "bundle 9c1e…2ab0",
  all: false,
  turningPoints: [{ rule: "max-share", at: "policies/production.yaml:41", rows: 1478, now: 3725 }],
  whatIf: {
    rows: 1400,
    decision: {
      kind: "needs-approval",
      requirement: denied.requirement,
      rules: denied.rules.filter((r) => r.effect !== "deny"),
    },
  },
  about: ["decided as if mona had made the plan"],
  next: [
    {
      actor: "anyone",
      argv: ["holdpoint", "policy", "explain", PLAN, "--what-if", "rows=1400"],
      text: "with fewer rows",
    },
  ],
};

export const envView: EnvView = {
  target: "elb-prod",
  verdict,
  description: "SQLite 3.53.2, /srv/state/elb.db, 6.1 MB, WAL",
  origins: ["url: holdpoint.yaml, ELB_PROD_URL"],
  next: [{ actor: "anyone", argv: ["holdpoint", "plan", "JOB", "--on", "elb-prod"] }],
};

export const unprovenView: EnvView = {
  ...envView,
  target: "elb-copy",
  verdict: {
    name: "unproven",
    guardedAs: "production",
    contradicted: true,
    because: ["The marker names elb-prod and the file is another one: a copy, or a replaced file."],
    evidence: [
      ...evidence.slice(0, 1),
      {
        source: "file identity",
        side: "target",
        strength: "strong",
        says: null,
        state: "contradicts",
        detail: "inode",
        expected: "1311",
        found: "2094",
      },
      {
        source: "clients",
        side: "target",
        strength: "medium",
        says: null,
        state: "absent",
        detail: "nobody else has the file open",
      },
    ],
  },
};

export const statusView: StatusView = {
  plans: [
    {
      id: PLAN,
      target: "elb-prod",
      job: "purge-idle",
      rows: 2532,
      requester: "dana",
      state: "waiting",
      detail: "0 of 1 people",
      expiresAt: "2026-11-25T14:20:00Z",
    },
  ],
  runs: [{ id: RUN, target: "elb-prod", plan: PLAN, state: "stopped", written: 1516, planned: 2526 }],
  next: [{ actor: "approver", argv: ["holdpoint", "approve", PLAN] }],
};

export const trustView: TrustView = {
  people: [
    {
      name: "dana",
      groups: ["leads"],
      keys: [
        {
          fingerprint: "SHA256:7aQm3v0nqQ0b2Yc8mJ5lTn8o0c9kP1xR4wZ6uV2sE02",
          type: "ssh-ed25519",
          line: 1,
          validity: "no end",
        },
      ],
    },
    {
      name: "ravi",
      groups: ["dba"],
      keys: [
        {
          fingerprint: "SHA256:c9Jx2u1mpP9a1Xb7lI4kSm7n9b8jO0wQ3vY5tU1rD1f",
          type: "sk-ssh-ed25519@openssh.com",
          line: 2,
          validity: "until 1 Jan 2027",
        },
      ],
    },
  ],
  policies: ["policies/production.yaml", "policies/staging.yaml"],
  targets: [{ target: "elb-prod", environment: "production", bundle: digestOf("bundle"), pinned: "same" }],
  next: [],
};

export const initView: InitView = {
  files: [
    {
      path: "holdpoint.yaml",
      act: "written",
      what: "1 target, guarded as production until proven otherwise",
    },
    { path: "people/allowed_signers", act: "written", what: "dana, ravi" },
    { path: ".gitignore", act: "line added", what: ".holdpoint/" },
  ],
  next: [
    {
      actor: "anyone",
      argv: ["holdpoint", "plan", "hello", "--on", "elb-prod"],
      text: "your first plan, 0 rows",
    },
  ],
};

export const pinView: PinView = {
  target: "elb-prod",
  verdict: "unproven",
  description: "SQLite 3.53.2, /srv/state/elb.db",
  environment: "production",
  identity: "sqlite:8f1c0a2b4c6d8e0f1a3b5c7d9e0f2a4b",
  bundle: digestOf("bundle"),
  ledger: "lg_0123456789abcdef",
  people: ["dana", "ravi"],
  writes: ["tables holdpoint_marker, holdpoint_spent, holdpoint_batches, holdpoint_notes"],
  done: false,
  next: [{ actor: "anyone", argv: ["holdpoint", "env", "pin", "elb-prod", "--confirm", "TARGET"] }],
};

export const errorView: ErrorView = new RefusedError({
  code: "ERR_APPROVAL_SELF",
  message: "you made this plan, so you cannot approve it",
  why: "requester and signer are both dana (keys SHA256:7a…02 and SHA256:e1…9c)",
  state: "Nothing was signed.",
  next: [{ actor: "approver", argv: ["holdpoint", "approve", PLAN], text: "someone in dba or leads" }],
});

export const markdownView: MarkdownView = {
  target: "elb-prod",
  environment: "production",
  job: "purge-idle",
  rows: 2532,
  card: card(troubled),
  odd: ["2 rows: were active, 2 of 1,204"],
  patterns,
  decision,
  reason: null,
  plan: PLAN,
  digest: digestOf("plan"),
};
