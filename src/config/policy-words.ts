/**
 * The words of a policy file: which keys stand where and what they hold. What a schema cannot say (that an id
 * is taken, that a window has a length) is held by `policy-reader.ts`.
 */
import * as z from "zod";
import { ENVIRONMENTS } from "../environment/evidence.js";
import { STOP_SIGNS } from "../policy/schema.js";
import { columnName } from "./jobs-section.js";
import { hasControls } from "./yaml-file.js";

const id = (): z.ZodType<string> =>
  z.string().regex(/^[a-z0-9][a-z0-9-]{0,63}$/, "wants small letters, digits and hyphens, 64 at most");

const sentence = (): z.ZodType<string> =>
  z
    .string()
    .max(300, "is longer than 300 characters")
    .refine((s) => !hasControls(s), { error: "has a line break or a control character: write one line" });

const count = (): z.ZodType<number> => z.int().min(0).max(Number.MAX_SAFE_INTEGER);

const approvals = () =>
  z.strictObject({ people: z.int().min(1).max(20), groups: z.array(sentence()).min(1).max(20).optional() });

const pattern = () => z.union([sentence(), z.strictObject({ re2: sentence() })]);

const required = () =>
  z.strictObject({
    people: z.int().min(1).max(20).optional(),
    groups: z.array(sentence()).min(1).max(20).optional(),
    approvals: z.array(approvals()).min(1).max(10).optional(),
    touch: z.boolean().optional(),
    verified: z.boolean().optional(),
    reviewed_in_tool: z.boolean().optional(),
    approver_reason: z.boolean().optional(),
    reason: z.boolean().optional(),
    ticket: pattern().optional(),
    expect: z.boolean().optional(),
    scope: z.boolean().optional(),
    max_age: sentence().optional(),
    waves: z.boolean().optional(),
    checks: z.boolean().optional(),
    snapshot: z.enum(["tables", "database"]).optional(),
  });

const requirement = () => z.strictObject({ require: required() });

const rule = () =>
  z.strictObject({
    id: id(),
    when: z.string(),
    // oxlint-disable-next-line unicorn/no-thenable -- the word of the format; never a function, never awaited
    then: z.union([z.enum(["allow", "deny"]), requirement()]),
    because: sentence(),
    flips: sentence().optional(),
  });

const cap = () =>
  z.strictObject({
    id: id(),
    on: z.union([z.literal("plan"), z.array(sentence()).min(1).max(100)]),
    op: z.enum(["insert", "update", "delete", "any"]).optional(),
    rows: count().optional(),
    share: z.string().optional(),
    remaining: count().optional(),
    rows_per_day: count().optional(),
    tenants: count().optional(),
    per_tenant: z
      .strictObject({ rows: count().optional(), share: z.string().optional(), remaining: count().optional() })
      .optional(),
    // oxlint-disable-next-line unicorn/no-thenable -- the word of the format; never a function, never awaited
    then: z.union([z.literal("deny"), requirement()]).optional(),
    because: sentence(),
  });

const freeze = () =>
  z.strictObject({
    id: id(),
    recurring: z.enum(["once", "yearly", "weekly", "daily"]),
    from: z.string(),
    to: z.string(),
    zone: z.string(),
    approvals: z.array(approvals()).min(1).max(10).optional(),
    because: sentence(),
  });

const assertion = () =>
  z.strictObject({
    id: id(),
    tables: z.array(sentence()).min(1).max(50),
    sql: z.string().max(10_000),
    message: sentence(),
  });

const testTenant = () =>
  z.strictObject({
    name: sentence(),
    insert: count().optional(),
    update: count().optional(),
    delete: count().optional(),
    rows_before: count().optional(),
  });

const testTable = () =>
  z.strictObject({
    name: sentence(),
    rows_before: count(),
    insert: count().optional(),
    update: count().optional(),
    delete: count().optional(),
    columns: z.array(sentence()).optional(),
    levelled: z.array(sentence()).optional(),
    protected_lost: count().optional(),
    cascaded: count().optional(),
    triggered: count().optional(),
    first_touch: z.boolean().optional(),
    tenants: z.array(testTenant()).optional(),
  });

const testEvidence = () =>
  z.strictObject({
    source: sentence(),
    says: z.enum(ENVIRONMENTS).optional(),
    strength: z.enum(["strong", "medium", "none"]).optional(),
    state: z.enum(["agrees", "contradicts", "absent", "informs"]),
    detail: sentence().optional(),
  });

const testPlan = () =>
  z.strictObject({
    environment: z.enum([...ENVIRONMENTS, "unproven"]).optional(),
    contradicted: z.boolean().optional(),
    kind: z.enum(["job", "undo", "rescue"]).optional(),
    act: z.enum(["plan", "apply"]).optional(),
    target: sentence().optional(),
    job: sentence().optional(),
    declares_scope: z.boolean().optional(),
    declares_expect: z.boolean().optional(),
    selective: z.boolean().optional(),
    scope: z.array(sentence()).min(1).optional(),
    requester: z
      .strictObject({
        person: sentence().optional(),
        groups: z.array(sentence()).optional(),
        kind: z.enum(["person", "ci", "agent"]).optional(),
      })
      .optional(),
    tables: z.array(testTable()).optional(),
    schema_changes: count().optional(),
    sequences: count().optional(),
    reason: sentence().optional(),
    ticket: sentence().optional(),
    now: z.string().optional(),
    plan_age: z.string().optional(),
    waves: z.boolean().optional(),
    checks: count().optional(),
    snapshot: z.enum(["rows", "tables", "database"]).optional(),
    job_runs: count().optional(),
    requester_runs: count().optional(),
    rows_last_day: count().optional(),
    evidence: z.array(testEvidence()).optional(),
    assertions: z.record(z.string(), count()).optional(),
  });

const test = () =>
  z.strictObject({
    name: sentence(),
    plan: testPlan(),
    expect: z.strictObject({
      decision: z.enum(["allow", "needs-approval", "deny"]),
      rules: z.array(sentence()).optional(),
      people: z.int().min(0).optional(),
    }),
  });

/** The schema of a whole file. Built on demand: it is large, and most commands read policies once or never. */
export const policySchema = () =>
  z.strictObject({
    format: z.literal("holdpoint-policy/1"),
    name: id(),
    enabled: z.boolean().optional(),
    environments: z.array(z.enum(ENVIRONMENTS)).min(1).max(ENVIRONMENTS.length),
    agents: z.enum(["plan-only", "apply"]).optional(),
    mask: z.array(columnName()).min(1).max(1000).optional(),
    stop_signs: z
      .strictObject({
        off: z
          .array(z.strictObject({ name: z.enum(STOP_SIGNS), because: sentence() }))
          .min(1)
          .optional(),
        on: z.array(z.enum(STOP_SIGNS)).min(1).optional(),
      })
      .optional(),
    freeze: z.array(freeze()).min(1).max(200).optional(),
    caps: z.array(cap()).min(1).max(1000).optional(),
    rules: z.array(rule()).min(1).max(2000).optional(),
    assertions: z.array(assertion()).min(1).max(200).optional(),
    tests: z.array(test()).min(1).max(2000).optional(),
  });

/** A file as the schema lets it through. */
export type RawPolicy = z.infer<ReturnType<typeof policySchema>>;
/** What stands under `require`. */
export type RawRequired = z.infer<ReturnType<typeof required>>;
/** The plan of a test. */
export type RawPlan = z.infer<ReturnType<typeof testPlan>>;
