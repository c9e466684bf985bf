/** A well-formed plan statement for tests. */
import type { PlanStatement } from "../../src/approval/plan-statement.js";
import { digestOf } from "../../src/base/digest.js";

export function planStatement(change: Partial<PlanStatement> = {}): PlanStatement {
  return {
    format: "holdpoint-plan/1",
    requester: {
      person: "dana@shop.example",
      key: "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
      how: "ssh-key",
      claims: { login: "dana", host: "workbench" },
    },
    job: {
      name: "purge-idle",
      kind: "sql",
      source: digestOf("delete from backends where idle"),
      path: "jobs/purge-idle.sql",
      parameters: { older_than_days: "30" },
      arguments: [],
      selective: true,
      scope: ["backends"],
      expect: { backends: { delete: [1, 5000] } },
    },
    from: null,
    target: {
      name: "elb-prod",
      adapter: "sqlite",
      identity: "sqlite:8f1c2b3a4d5e6f708192a3b4c5d6e7f8",
      verdict: "production",
    },
    rehearsal: { where: "in-place", at: "2026-11-24T14:37:00Z", lock_ms: 12 },
    schema: {
      fingerprint: digestOf("schema"),
      changes: [
        {
          action: "create",
          object: "index",
          name: "idle",
          before: null,
          after: "create index idle …",
          undo: "yes",
        },
      ],
    },
    settings: { foreign_keys: "on" },
    mode: "rows",
    script: [],
    waves: null,
    pace: { max_rows_per_second: null },
    checks: [],
    hooks: [],
    snapshot: { level: "rows" },
    bundle: digestOf("bundle"),
    changeset: {
      digest: digestOf("rows"),
      rows: 2414,
      tables: [{ name: "backends", insert: 0, update: 0, delete: 2414, rows_before: 4000, origin: "job" }],
    },
    sequences: [{ name: "backends", before: "17", after: "18" }],
    volatile: [{ table: "backends", column: "seen_at", rows: 3 }],
    notices: ["INSERT OR REPLACE replaced 3 rows of backends"],
    decision: "needs-approval",
    reason: "idle for 30 days",
    ticket: "OPS-4412",
    created_at: "2026-11-24T14:37:02Z",
    expires_at: "2026-11-25T14:37:02Z",
    ledger: null,
    nonce: "000102030405060708090a0b0c0d0e0f",
    ...change,
  };
}
