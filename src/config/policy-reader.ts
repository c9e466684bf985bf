/** From checked YAML to policy types, with what a schema cannot say, and the place of everything. */
import { parseDuration, parseStamp } from "../base/clock.js";
import { UsageError } from "../base/errors.js";
import { NOTHING_ASKED } from "../policy/finding.js";
import { isZone } from "../policy/freeze.js";
import { preparePattern } from "../policy/patterns.js";
import {
  type ApprovalsAsked,
  type Asked,
  type Assertion,
  type Cap,
  columnOf,
  type Consequence,
  type Expression,
  type Freeze,
  type LocalMoment,
  type PolicyFile,
  type PolicyRule,
  type PolicyTest,
  type Position,
  STOP_SIGNS,
  type TenantBounds,
  type TestPlan,
  type TextPattern,
} from "../policy/schema.js";
import { MOMENTS, ORDINARY_MOMENT, orderOf, readMoment } from "./policy-moments.js";
import type { RawPlan, RawPolicy, RawRequired } from "./policy-words.js";
import type { Path } from "./yaml-file.js";

/** Ids that results already use for something else. */
const TAKEN_IDS: ReadonlySet<string> = new Set([...STOP_SIGNS, "no-rule", "facts", "agents"]);

/** A file's text, under the name that errors print. */
export interface PolicyText {
  readonly path: string;
  readonly text: string;
}

/** Turns checked YAML into policy types and collects what a schema cannot say, with its place. */
export class PolicyReader {
  readonly #faults: { readonly at: Position; readonly what: string }[] = [];
  readonly #ids = new Map<string, Position>();
  readonly #source: PolicyText;
  readonly #at: (path: Path) => string;

  constructor(source: PolicyText, at: (path: Path) => string) {
    this.#source = source;
    this.#at = at;
  }

  /** @throws UsageError when anything was found. */
  finish(): void {
    const faults = this.#faults.toSorted((a, b) => a.at.line - b.at.line || a.at.column - b.at.column);
    const lines = faults.map((f) => `${columnOf(f.at)} ${f.what}`);
    if (lines.length === 0) return;
    throw new UsageError({
      code: "ERR_POLICY_INVALID",
      message: `${lines[0] ?? ""}${lines.length > 1 ? ` (and ${lines.length - 1} more)` : ""}`,
      ...(lines.length > 1 ? { why: lines.slice(1, 10).join("; ") } : {}),
      next: [
        {
          actor: "anyone",
          text: "Correct the policy and run the command again. Until then nothing is permitted.",
        },
      ],
      details: faults.map((f) => ({ at: columnOf(f.at), what: f.what })),
    });
  }

  policy(raw: RawPolicy): PolicyFile {
    this.#unique(raw.environments, ["environments"]);
    const off = raw.stop_signs?.off ?? [];
    this.#unique(
      off.map((o) => o.name),
      ["stop_signs", "off"],
    );
    this.#unique(raw.stop_signs?.on ?? [], ["stop_signs", "on"]);
    this.#unique(raw.mask ?? [], ["mask"]);
    const both = off.findIndex((o) => raw.stop_signs?.on?.includes(o.name));
    if (both >= 0) this.#fault(["stop_signs", "off", both], "is switched on and off in one file");
    const assertions = (raw.assertions ?? []).map((a, i) => this.#assertion(a, ["assertions", i]));
    return {
      format: raw.format,
      file: this.#source.path,
      at: this.#position(["name"]),
      name: raw.name,
      enabled: raw.enabled ?? true,
      environments: raw.environments,
      agents: raw.agents ?? null,
      mask: raw.mask ?? [],
      rules: (raw.rules ?? []).map((r, i) => this.#rule(r, ["rules", i])),
      caps: (raw.caps ?? []).map((c, i) => this.#cap(c, ["caps", i])),
      freezes: (raw.freeze ?? []).map((f, i) => this.#freeze(f, ["freeze", i])),
      stopSigns: {
        off: off.map((o, i) => ({ ...o, at: this.#position(["stop_signs", "off", i]) })),
        on: raw.stop_signs?.on ?? [],
      },
      assertions,
      tests: (raw.tests ?? []).map((t, i) =>
        this.#test(t, raw, new Set(assertions.map((a) => a.id)), ["tests", i]),
      ),
    };
  }

  #rule(raw: NonNullable<RawPolicy["rules"]>[number], path: Path): PolicyRule {
    this.#id(raw.id, [...path, "id"]);
    return {
      id: raw.id,
      at: this.#position(path),
      when: this.#expression(raw.when, [...path, "when"]),
      follows: this.#consequence(raw.then, [...path, "then"]),
      because: raw.because,
      flips: raw.flips ?? null,
    };
  }

  /** A plain or quoted scalar that stands in the file exactly as it reads lets errors name columns inside it. */
  #expression(text: string, path: Path): Expression {
    const at = this.#position(path);
    const line = this.#source.text.split("\n")[at.line - 1] ?? "";
    const here = line.slice(at.column - 1);
    if (here.startsWith(text)) return { text, at, verbatim: true };
    const quoted = /^["']/.test(here) && here.slice(1).startsWith(text) && !/[\\"']/.test(text);
    return quoted
      ? { text, at: { ...at, column: at.column + 1 }, verbatim: true }
      : { text, at, verbatim: false };
  }

  #consequence(raw: "allow" | "deny" | { readonly require: RawRequired }, path: Path): Consequence {
    if (raw === "allow") return { kind: "allow" };
    return this.#stricter(raw, path);
  }

  #stricter(raw: "deny" | { readonly require: RawRequired }, path: Path): Cap["follows"] {
    if (raw === "deny") return { kind: "deny" };
    return { kind: "require", asked: this.#asked(raw.require, [...path, "require"]) };
  }

  #asked(raw: RawRequired, path: Path): Asked {
    if (raw.approvals !== undefined && (raw.people !== undefined || raw.groups !== undefined))
      this.#fault([...path, "approvals"], "stands beside people or groups: write one or the other");
    if (raw.groups !== undefined && raw.people === undefined)
      this.#fault([...path, "groups"], "needs people: how many of these groups");
    const single = raw.people === undefined ? [] : [{ people: raw.people, groups: raw.groups }];
    const asked: Asked = {
      ...NOTHING_ASKED,
      approvals: this.#approvals(raw.approvals ?? single, path),
      touch: raw.touch ?? false,
      verified: raw.verified ?? false,
      reviewedInTool: raw.reviewed_in_tool ?? false,
      approverReason: raw.approver_reason ?? false,
      reason: raw.reason ?? false,
      ticket: raw.ticket === undefined ? null : this.#pattern(raw.ticket, [...path, "ticket"]),
      expect: raw.expect ?? false,
      scope: raw.scope ?? false,
      maxAgeSeconds: raw.max_age === undefined ? null : this.#duration(raw.max_age, [...path, "max_age"]),
      waves: raw.waves ?? false,
      checks: raw.checks ?? false,
      snapshot: raw.snapshot ?? null,
    };
    this.#requireSense(asked, raw, path);
    return asked;
  }

  #requireSense(asked: Asked, raw: RawRequired, path: Path): void {
    const { approvals, touch, verified, reviewedInTool, approverReason } = asked;
    const { reason, ticket, expect, scope, maxAgeSeconds, waves, checks, snapshot } = asked;
    const ofPlan = reason || expect || scope || waves || checks;
    if (approvals.length > 0 || raw.groups !== undefined) return;
    if (touch || verified || reviewedInTool || approverReason)
      this.#fault(path, "asks something of approvers and for no approvals: add people");
    else if (!ofPlan && ticket === null && maxAgeSeconds === null && snapshot === null)
      this.#fault(path, "asks for nothing");
  }

  #approvals(
    raw: readonly { readonly people: number; readonly groups?: readonly string[] | undefined }[],
    path: Path,
  ): ApprovalsAsked[] {
    return raw.map((a) => {
      this.#unique(a.groups ?? [], path);
      return { people: a.people, groups: a.groups ?? [] };
    });
  }

  #pattern(raw: string | { readonly re2: string }, path: Path): TextPattern {
    const found =
      typeof raw === "string"
        ? ({ kind: "glob", pattern: raw } as const)
        : ({ kind: "re2", pattern: raw.re2 } as const);
    const prepared = preparePattern(found.kind, found.pattern);
    if (!prepared.ok) this.#fault(path, `is not a pattern: ${prepared.why}`);
    return { ...found, at: this.#position(path) };
  }

  #duration(text: string, path: Path): number {
    const seconds = parseDuration(text);
    if (seconds === undefined)
      this.#fault(path, `wants a duration as 30m, 48h or 7d, and has ${JSON.stringify(text)}`);
    return seconds ?? 0;
  }

  #cap(raw: NonNullable<RawPolicy["caps"]>[number], path: Path): Cap {
    this.#id(raw.id, [...path, "id"]);
    const op = raw.op ?? "any";
    const onPlan = raw.on === "plan";
    const misplaced = (key: string, what: string): void => this.#fault([...path, key], what);
    if (onPlan && raw.share !== undefined) misplaced("share", 'is a share of a table: write on: ["*"]');
    if (onPlan && raw.remaining !== undefined)
      misplaced("remaining", 'counts rows of a table: write on: ["*"]');
    if (!onPlan && raw.rows_per_day !== undefined)
      misplaced("rows_per_day", "counts whole plans: write on: plan");
    if (raw.rows_per_day !== undefined && op !== "any")
      misplaced("rows_per_day", "counts every operation: leave op out");
    if (raw.share !== undefined && op === "insert") misplaced("share", "has no meaning for inserts");
    if (onPlan && raw.per_tenant !== undefined)
      misplaced("per_tenant", 'counts rows of a tenant in a table: write on: ["*"]');
    const { rows, share, remaining, rows_per_day, tenants, per_tenant } = raw;
    if ([rows, share, remaining, rows_per_day, tenants, per_tenant].every((b) => b === undefined))
      this.#fault(path, "sets no bound: write rows, share, remaining, rows_per_day, tenants or per_tenant");
    const big = (n: number | undefined): bigint | null => (n === undefined ? null : BigInt(n));
    return {
      id: raw.id,
      at: this.#position(path),
      on: raw.on === "plan" ? { kind: "plan" } : { kind: "tables", globs: raw.on },
      op,
      rows: big(raw.rows),
      shareMillionths: raw.share === undefined ? null : this.#share(raw.share, [...path, "share"]),
      remaining: big(raw.remaining),
      rowsPerDay: big(raw.rows_per_day),
      tenants: big(raw.tenants),
      perTenant:
        raw.per_tenant === undefined
          ? null
          : this.#perTenant(raw.per_tenant, op === "insert", [...path, "per_tenant"]),
      follows: this.#stricter(raw.then ?? "deny", [...path, "then"]),
      because: raw.because,
    };
  }

  #perTenant(
    raw: NonNullable<NonNullable<RawPolicy["caps"]>[number]["per_tenant"]>,
    ofInserts: boolean,
    path: Path,
  ): TenantBounds {
    if (raw.rows === undefined && raw.share === undefined && raw.remaining === undefined)
      this.#fault(path, "sets no bound: write rows, share or remaining");
    if (raw.share !== undefined && ofInserts) this.#fault([...path, "share"], "has no meaning for inserts");
    return {
      rows: raw.rows === undefined ? null : BigInt(raw.rows),
      shareMillionths: raw.share === undefined ? null : this.#share(raw.share, [...path, "share"]),
      remaining: raw.remaining === undefined ? null : BigInt(raw.remaining),
    };
  }

  #share(text: string, path: Path): bigint {
    const [, whole = "", fraction = ""] = /^(\d{1,3})(?:\.(\d{1,4}))?\s?%$/.exec(text) ?? [];
    const millionths = whole === "" ? -1n : BigInt(whole) * 10_000n + BigInt(fraction.padEnd(4, "0"));
    if (millionths < 0n || millionths > 1_000_000n)
      this.#fault(path, `wants a share from 0% to 100%, and has ${JSON.stringify(text)}`);
    return millionths;
  }

  #freeze(raw: NonNullable<RawPolicy["freeze"]>[number], path: Path): Freeze {
    this.#id(raw.id, [...path, "id"]);
    if (!isZone(raw.zone))
      this.#fault(
        [...path, "zone"],
        `wants a time zone as Europe/Paris or UTC, and has ${JSON.stringify(raw.zone)}`,
      );
    const from = this.#moment(raw.from, raw.recurring, [...path, "from"]);
    const to = this.#moment(raw.to, raw.recurring, [...path, "to"]);
    if (orderOf(from) === orderOf(to))
      this.#fault([...path, "to"], "is the moment at which the window begins");
    if (raw.recurring === "once" && orderOf(to) < orderOf(from))
      this.#fault([...path, "to"], "lies before from");
    return {
      id: raw.id,
      at: this.#position(path),
      recurring: raw.recurring,
      from,
      to,
      zone: raw.zone,
      approvals: this.#approvals(raw.approvals ?? [], [...path, "approvals"]),
      because: raw.because,
    };
  }

  #moment(text: string, recurring: Freeze["recurring"], path: Path): LocalMoment {
    const moment = readMoment(text, recurring);
    if (moment === null) this.#fault(path, `wants ${MOMENTS[recurring]}, and has ${JSON.stringify(text)}`);
    return moment ?? { year: null, month: null, day: null, weekday: null, hour: 0, minute: 0, text };
  }

  #assertion(raw: NonNullable<RawPolicy["assertions"]>[number], path: Path): Assertion {
    this.#id(raw.id, [...path, "id"]);
    this.#unique(raw.tables, [...path, "tables"]);
    if (!/^\s*(select|with)\b/i.test(raw.sql))
      this.#fault([...path, "sql"], "wants one query that begins with SELECT or WITH");
    return { id: raw.id, at: this.#position(path), tables: raw.tables, sql: raw.sql, message: raw.message };
  }

  #test(
    raw: NonNullable<RawPolicy["tests"]>[number],
    policy: RawPolicy,
    assertions: ReadonlySet<string>,
    path: Path,
  ): PolicyTest {
    const unknown = Object.keys(raw.plan.assertions ?? {}).find((name) => !assertions.has(name));
    if (unknown !== undefined)
      this.#fault([...path, "plan", "assertions", unknown], `${unknown} is no assertion of this file`);
    return {
      name: raw.name,
      at: this.#position(path),
      plan: this.#testPlan(raw.plan, policy, [...path, "plan"]),
      expect: {
        decision: raw.expect.decision,
        rules: raw.expect.rules ?? null,
        people: raw.expect.people ?? null,
      },
    };
  }

  #testPlan(raw: RawPlan, policy: RawPolicy, path: Path): TestPlan {
    const big = (n: number | undefined): bigint => BigInt(n ?? 0);
    const tables = (raw.tables ?? []).map((t, i) => {
      if ((t.update ?? 0) + (t.delete ?? 0) > t.rows_before)
        this.#fault([...path, "tables", i], "updates and deletes more rows than the table had");
      return {
        name: t.name,
        rowsBefore: BigInt(t.rows_before),
        insert: big(t.insert),
        update: big(t.update),
        delete: big(t.delete),
        columns: t.columns ?? [],
        levelled: t.levelled ?? [],
        protectedLost: big(t.protected_lost),
        cascaded: big(t.cascaded),
        triggered: big(t.triggered),
        firstTouch: t.first_touch ?? false,
        tenants: (t.tenants ?? []).map((x) => ({
          name: x.name,
          insert: big(x.insert),
          update: big(x.update),
          delete: big(x.delete),
          rowsBefore: big(x.rows_before),
        })),
      };
    });
    this.#unique(
      tables.map((t) => t.name),
      [...path, "tables"],
    );
    return {
      environment: raw.environment ?? policy.environments[0] ?? "production",
      contradicted: raw.contradicted ?? false,
      kind: raw.kind ?? "job",
      act: raw.act ?? "apply",
      target: raw.target ?? "shop",
      job: raw.job ?? "job",
      declaresScope: raw.declares_scope ?? true,
      declaresExpect: raw.declares_expect ?? true,
      selective: raw.selective ?? true,
      scope: raw.scope ?? null,
      requester: {
        person: raw.requester?.person ?? "dana",
        groups: raw.requester?.groups ?? [],
        kind: raw.requester?.kind ?? "person",
      },
      tables,
      schemaChanges: big(raw.schema_changes),
      sequences: big(raw.sequences),
      reason: raw.reason ?? "",
      ticket: raw.ticket ?? "",
      now: this.#instant(raw.now ?? ORDINARY_MOMENT, [...path, "now"]),
      planAgeSeconds: BigInt(
        raw.plan_age === undefined ? 60 : this.#duration(raw.plan_age, [...path, "plan_age"]),
      ),
      waves: raw.waves ?? false,
      checks: big(raw.checks),
      snapshot: raw.snapshot ?? "rows",
      history: {
        jobRuns: big(raw.job_runs),
        requesterRuns: big(raw.requester_runs),
        rowsLastDay: big(raw.rows_last_day),
      },
      evidence: (raw.evidence ?? []).map((e) => ({
        source: e.source,
        says: e.says ?? null,
        strength: e.strength ?? "strong",
        state: e.state,
        detail: e.detail ?? "",
      })),
      assertions: raw.assertions ?? {},
    };
  }

  #instant(text: string, path: Path): Date {
    const at = parseStamp(text);
    if (at === undefined)
      this.#fault(path, `wants a moment as ${ORDINARY_MOMENT}, and has ${JSON.stringify(text)}`);
    return at ?? new Date(0);
  }

  #id(name: string, path: Path): void {
    const other = this.#ids.get(name);
    if (TAKEN_IDS.has(name)) this.#fault(path, `${name} is the name of something built in`);
    else if (other !== undefined) this.#fault(path, `${name} is taken in line ${other.line}`);
    else this.#ids.set(name, this.#position(path));
  }

  #unique(values: readonly string[], path: Path): void {
    const twice = values.find((v, i) => values.indexOf(v) !== i);
    if (twice !== undefined) this.#fault(path, `names ${twice} twice`);
  }

  #fault(path: Path, what: string): void {
    const name = path.findLast((step) => typeof step === "string") ?? "the file";
    const index = typeof path.at(-1) === "number" ? ` ${Number(path.at(-1)) + 1}` : "";
    this.#faults.push({ at: this.#position(path), what: `${name}${index} ${what}` });
  }

  #position(path: Path): Position {
    const [, file = this.#source.path, line = "1", column = "1"] =
      /^(.*):(\d+):(\d+)$/s.exec(this.#at(path)) ?? [];
    return { file, line: Number(line), column: Number(column) };
  }
}
