/**
 * Doctor: is this project set up so that holdpoint can keep its promises here? Looks at configuration, keys,
 * people, policies, store, ledger and targets, and at ways around holdpoint that lie open. Reads only.
 */
import { NAMESPACES } from "../approval/requirement.js";
import { HoldpointError, isOutOfReach, type NextStep } from "../base/errors.js";
import { type Purpose, targetConfigOf } from "../config/config.js";
import { lintAssertions } from "../policy/lint-assertions.js";
import { lintPolicies } from "../policy/lint.js";
import { runPolicyTests } from "../policy/test-cases.js";
import { textsFact } from "../ledger/facts.js";
import { groupsOf } from "./check-policies.js";
import { type Examined, withTarget } from "./judging/examine.js";
import { usesOfPlanning } from "./judging/role-use.js";
import { requirePlannable } from "./plan.js";
import type { PrivilegeCheck, RolePrivileges, RoleUse } from "../target/target.js";
import { pauseRulesFor } from "./writing/collectors.js";
import type { Toolbox } from "./toolbox.js";

/** How bad it is: `stop` prevents work or opens a way around; `look` is for a person to judge. */
export type Level = "ok" | "look" | "stop";

/** One thing that was looked at. */
export interface DoctorFinding {
  /** Stable name: `config`, `people`, `keys`, `policies`, `rules`, `files`, `store`, `ledger`, `target`, `role`, `way-around`. */
  readonly check: string;
  /** The target it is about, where it is about one. */
  readonly target: string | null;
  readonly level: Level;
  readonly what: string;
  /** What to do; empty for `ok`. */
  readonly todo: readonly NextStep[];
}

/** What this machine tells about files and variables; `machine/` implements it. */
export interface MachineProbe {
  readonly file: (path: string) => {
    readonly mode: number;
    readonly mine: boolean | null;
    readonly writable: boolean;
    readonly device: number;
  } | null;
  /** Names of variables that lead to the target without holdpoint; the one that its own url names is among them. */
  readonly variablesNaming: (target: string) => readonly string[];
  /** Lines of files in reach that lead to the target: `.env:3 DATABASE_URL`. Never what stands there. */
  readonly credentialFiles: (
    target: string,
  ) => readonly { readonly where: string; readonly kind: "dotenv" | "pgpass" | "service" }[];
}

/** A rule is looked at once it could have spoken this often. */
const PLANS_LOOKED_AT = 100;
const FEWEST_PLANS = 10;

/** Everything, or what concerns one target beside what concerns all. */
export async function doctor(
  tools: Toolbox,
  probe: MachineProbe,
  only: string | null,
): Promise<readonly DoctorFinding[]> {
  const names = only === null ? Object.keys(tools.project.config.targets) : [only];
  const looks: readonly (() => readonly DoctorFinding[] | Promise<readonly DoctorFinding[]>)[] = [
    () => [configFinding(tools)],
    () => peopleFindings(tools),
    () => pipelineFindings(tools),
    () => keyFindings(tools),
    () => policyFindings(tools),
    () => ruleFindings(tools),
    () => fileFindings(tools, probe),
    () => ledgerFindings(tools),
    ...names.map((name) => () => targetFindings(tools, probe, name)),
  ];
  const found: DoctorFinding[] = [];
  for (const look of looks) found.push(...(await lookedAt(look)));
  return withoutRepeats(found);
}

/** What cannot be read is a finding, and the rest is still looked at. */
async function lookedAt(
  look: () => readonly DoctorFinding[] | Promise<readonly DoctorFinding[]>,
): Promise<readonly DoctorFinding[]> {
  try {
    return await look();
  } catch (e) {
    if (!(e instanceof HoldpointError) || e.code === "ERR_INTERNAL") throw e;
    return [unreadableProject(e)];
  }
}

/** One broken file is met by several looks. */
function withoutRepeats(found: readonly DoctorFinding[]): readonly DoctorFinding[] {
  return found.filter((f, i) => found.findIndex((g) => g.target === f.target && g.what === f.what) === i);
}

/** A project that cannot even be read, as the one finding that can be made. */
export function unreadableProject(e: HoldpointError): DoctorFinding {
  return { ...stop(areaOf(e), problem(e)), todo: e.next };
}

function areaOf(e: HoldpointError): string {
  const [, area = ""] = /^ERR_([A-Z]+)/.exec(e.code) ?? [];
  const named = new Map([
    ["PEOPLE", "people"],
    ["POLICY", "policies"],
    ["STORE", "store"],
    ["LEDGER", "ledger"],
  ]);
  return named.get(area) ?? "config";
}

function configFinding(tools: Toolbox): DoctorFinding {
  const { config } = tools.project;
  const targets = Object.values(config.targets);
  if (targets.length === 0)
    return stop("config", `${config.file} names no target`, say("Add the first one under targets."));
  const unclaimed = targets.filter((t) => t.environment === null).map((t) => t.name);
  if (unclaimed.length > 0)
    return look(
      "config",
      `${unclaimed.join(", ")} ${unclaimed.length === 1 ? "claims" : "claim"} no environment, and counts as production`,
      say("Write environment: under each target, so that a reader sees what is meant."),
    );
  return ok(
    "config",
    `${counted(targets.length, "target")}, ${counted(Object.keys(config.jobs).length, "job")} in ${config.file}`,
  );
}

/** Pipelines that only a token proves, or that a key does; nothing where the project has none. */
function pipelineFindings(tools: Toolbox): DoctorFinding[] {
  const { ci } = tools.project;
  if (ci === null) return [];
  const known = ci.identities ?? [];
  if (known.length > 0) {
    const names = known.map((i) => `${i.name} (${i.provider}, may ${i.may.join(" and ")})`).join(", ");
    return [ok("people", `pipelines are who their identity token says: ${names}`)];
  }
  if (ci.accounts.length === 0) return [];
  return [
    look(
      "people",
      `${ci.accounts.join(", ")}: whoever has the key can be this pipeline, from anywhere`,
      say("Pin the pipeline under ci.identity of groups.yaml; its CI's token then says who it is."),
    ),
  ];
}

function peopleFindings(tools: Toolbox): DoctorFinding[] {
  const { people } = tools.project;
  const now = tools.clock.now().toISOString();
  const approvers = people.filter((p) =>
    p.keys.some(
      (k) => k.namespaces.includes(NAMESPACES.approval) && (k.validBefore === null || k.validBefore > now),
    ),
  );
  const names = people.map((p) => p.name).join(", ");
  if (approvers.length < 2)
    return [
      stop(
        "people",
        `${approvers.length === 0 ? "nobody" : "only 1 person"} can approve, and whoever asks never counts`,
        say("Add a second person's key to the people file."),
      ),
    ];
  const expired = people.flatMap((p) =>
    p.keys
      .filter((k) => k.validBefore !== null && k.validBefore <= now)
      .map((k) => `${p.name} (line ${k.line})`),
  );
  const found = [ok("people", `${people.length} people: ${names}`)];
  if (expired.length > 0)
    found.push(
      look("people", `keys that ended: ${expired.join(", ")}`, say("Replace or remove these lines.")),
    );
  return found;
}

async function keyFindings(tools: Toolbox): Promise<DoctorFinding[]> {
  return [await keyFinding(tools)];
}

async function keyFinding(tools: Toolbox): Promise<DoctorFinding> {
  try {
    const key = await tools.findKey(undefined, NAMESPACES.plan);
    if (key.person !== null) return ok("keys", `you sign as ${key.person}, key ${key.fingerprint}`);
    return look(
      "keys",
      `your key ${key.fingerprint} is nobody's here`,
      say("Ask for it to be added, or give --key."),
    );
  } catch (e) {
    if (!(e instanceof HoldpointError)) throw e;
    return look("keys", problem(e), e.next);
  }
}

async function policyFindings(tools: Toolbox): Promise<DoctorFinding[]> {
  const { policies, people } = tools.project;
  const found: DoctorFinding[] = [
    ...lintPolicies(policies, groupsOf(people), tools.clock.now()),
    ...lintAssertions(policies, await tools.queryPreparer(), null),
  ]
    // A policy that is off is somebody's decision, an example, or both.
    .filter((f) => f.kind !== "off" && f.kind !== "no-tests")
    .map((f) => {
      const todo = [{ actor: "anyone" as const, argv: ["holdpoint", "policy", "lint"] }];
      const what = `${f.what} (${f.at})`;
      return f.severity === "error" ? stop("policies", what, todo) : look("policies", what, todo);
    });
  const failed = policies.files.flatMap((f) => runPolicyTests(f)).filter((o) => !o.passed);
  const [first] = failed;
  if (first !== undefined)
    found.push(
      stop("policies", `${failed.length} policy tests fail, the first ${first.name} (${first.at})`, [
        { actor: "anyone", argv: ["holdpoint", "policy", "test"] },
      ]),
    );
  const on = policies.files.filter((f) => f.file.enabled).length;
  return found.length > 0
    ? found
    : [ok("policies", `${on} of ${policies.files.length} are on, tests pass, lint is quiet`)];
}

/** A sign that is always up is not read. Plain approvals are meant for every plan; denials and stop signs are not. */
async function ruleFindings(tools: Toolbox): Promise<DoctorFinding[]> {
  const plans: (readonly string[])[] = [];
  for (const { entry } of (await tools.ledger()).entries({ kinds: ["planned"] })) {
    if (entry.facts["rules"] === undefined) continue;
    plans.push(textsFact(entry, "rules"));
    if (plans.length > PLANS_LOOKED_AT) plans.shift();
  }
  if (plans.length < FEWEST_PLANS) return [];
  const times = new Map<string, number>();
  for (const rules of plans)
    for (const rule of rules) if (isSign(rule)) times.set(rule, (times.get(rule) ?? 0) + 1);
  return [...times]
    .filter(([, n]) => n * 2 > plans.length)
    .map(([rule, n]) =>
      look(
        "rules",
        `${rule.replace(/^\S+ /, "")} fired on ${n} of the last ${plans.length} plans`,
        say("A sign that is always up is not read: narrow the rule, or the jobs."),
      ),
    );
}

const SIGNS: ReadonlySet<string> = new Set([
  "require over-half-updated",
  "require no-where",
  "require column-levelled",
]);

function isSign(rule: string): boolean {
  return SIGNS.has(rule) || rule.startsWith("deny ") || rule.startsWith("error ");
}

function fileFindings(tools: Toolbox, probe: MachineProbe): DoctorFinding[] {
  const { config } = tools.project;
  const guarded = [config.file, config.people, config.groups, config.policies];
  const open = guarded.flatMap((path) => {
    const mode = probe.file(path)?.mode ?? 0;
    return (mode & 0o022) === 0 ? [] : [{ path, mode }];
  });
  if (open.length === 0)
    return [ok("files", "configuration, people and policies are writable by their owner alone")];
  return open.map(({ path, mode }) =>
    look(
      "files",
      `${path} is writable by ${(mode & 0o002) === 0 ? "its group" : "everybody"} (mode 0${mode.toString(8)}); a pinned target refuses what is changed there`,
      [{ actor: "anyone", argv: ["chmod", "go-w", path] }],
    ),
  );
}

async function ledgerFindings(tools: Toolbox): Promise<DoctorFinding[]> {
  return [await ledgerFinding(tools)];
}

async function ledgerFinding(tools: Toolbox): Promise<DoctorFinding> {
  const ledger = await tools.ledger();
  if (ledger.head() === null) return ok("ledger", "none yet; the first plan or pin makes it");
  const verified = ledger.verify([]);
  if (verified.ok) return ok("ledger", `${verified.entries} entries, the chain is intact`);
  return stop("ledger", `it is not intact from entry ${verified.firstBad} on: ${verified.why}`, [
    { actor: "anyone", argv: ["holdpoint", "log", "verify"] },
  ]);
}

async function targetFindings(tools: Toolbox, probe: MachineProbe, name: string): Promise<DoctorFinding[]> {
  return [...(await examinedFindings(tools, probe, name)), ...(await roleFindings(tools, name))];
}

async function examinedFindings(tools: Toolbox, probe: MachineProbe, name: string): Promise<DoctorFinding[]> {
  try {
    return await withTarget(tools, name, async (examined) => {
      const state = await stateFinding(tools, examined, name);
      return [
        state,
        ...storeFindings(tools, probe, examined),
        ...waysAround(probe, examined),
        ...(await lagFindings(tools, examined)),
      ].map((f) => ({ ...f, target: name }));
    });
  } catch (e) {
    if (!(e instanceof HoldpointError)) throw e;
    return [{ ...stop("target", problem(e)), todo: e.next, target: name }];
  }
}

/** The roles of a target's connections, each asked of the server over its own: what it lacks, and what it has too much. */
async function roleFindings(tools: Toolbox, name: string): Promise<DoctorFinding[]> {
  const configured = tools.project.config.targets[name];
  // That there is no such target was found already.
  if (configured === undefined) return [];
  const tables = [...new Set(Object.values(tools.project.config.jobs).flatMap((job) => job.scope ?? []))];
  const planning = usesOfPlanning(configured);
  const asked: readonly (readonly [Purpose, readonly RoleUse[]])[] =
    configured.planUrl === null
      ? [["write", [...planning, "write"]]]
      : [
          ["plan", planning],
          ["write", ["write"]],
        ];
  const found: DoctorFinding[] = [];
  const roles: string[] = [];
  for (const [purpose, uses] of asked) {
    try {
      const role = await privilegesOf(tools, name, purpose, uses, tables);
      if (role === null) return [];
      roles.push(role.role);
      found.push(...privilegeFindings(role, uses));
    } catch (e) {
      if (!(e instanceof HoldpointError)) throw e;
      // With one connection the target's own finding has said it already.
      if (configured.planUrl !== null) found.push(unseenRole(e, purpose));
    }
  }
  if (roles.length === 2 && roles[0] === roles[1])
    found.push(
      look(
        "role",
        `url and plan_url come by the same role, ${roles[0] ?? ""}: nothing is kept apart`,
        say("Give plan_url a role of its own."),
      ),
    );
  return found.map((f) => ({ ...f, target: name }));
}

async function privilegesOf(
  tools: Toolbox,
  name: string,
  purpose: Purpose,
  uses: readonly RoleUse[],
  tables: readonly string[],
): Promise<RolePrivileges | null> {
  const { target } = await tools.openTarget(name, purpose);
  try {
    return (await target.privileges?.(uses, tables)) ?? null;
  } finally {
    await target.close();
  }
}

/** A machine that plans has no business with the role that writes, and the other way round. */
function unseenRole(e: HoldpointError, purpose: Purpose): DoctorFinding {
  const key = purpose === "plan" ? "plan_url" : "url";
  if (isOutOfReach(e))
    return ok("role", `${key} is not in reach from here (${e.message}): its role is looked at where it is`);
  return { ...stop("role", `${key}: ${problem(e)}`), todo: e.next };
}

function privilegeFindings(
  { role, checks, beyond }: RolePrivileges,
  uses: readonly RoleUse[],
): DoctorFinding[] {
  const found = checks.map((c) => privilegeFinding(role, c));
  for (const right of beyond)
    found.push(
      look(
        "role",
        `${role}, ${useWords(uses)}: ${right}, which nothing here needs`,
        say("docs/postgres.md lists what each role needs."),
      ),
    );
  return found;
}

function privilegeFinding(role: string, check: PrivilegeCheck): DoctorFinding {
  const words = `${role}, ${useWords([check.use])}: ${check.what}`;
  if (check.held) return ok("role", words);
  const level = check.needed ? stop : look;
  return level("role", `${words} is missing: ${check.without}`, [{ actor: "dba", text: check.grant }]);
}

function useWords(uses: readonly RoleUse[]): string {
  const words = { look: "to look", rehearse: "to rehearse", write: "to write" } as const;
  return uses.map((u) => words[u]).join(" and ");
}

async function stateFinding(tools: Toolbox, examined: Examined, name: string): Promise<DoctorFinding> {
  try {
    await requirePlannable(tools, examined);
  } catch (e) {
    if (!(e instanceof HoldpointError)) throw e;
    return { ...stop(e.code.startsWith("ERR_STORE") ? "store" : "target", problem(e)), todo: e.next };
  }
  if (examined.marker === null)
    return stop("target", "not pinned: nothing can be applied to it", [
      { actor: "dba", argv: ["holdpoint", "env", "pin", name] },
    ]);
  const { verdict } = examined;
  if (verdict.name === "unproven")
    return look("target", `unproven, guarded as production: ${verdict.because.join("; ")}`, [
      { actor: "anyone", argv: ["holdpoint", "env", "check", name] },
    ]);
  return ok("target", `${verdict.name}, pinned, trust bundle and ledger are the pinned ones`);
}

/** A run that waits for a lag which it may not read pauses for ever: better told today than in the window. */
async function lagFindings(tools: Toolbox, { target, verdict }: Examined): Promise<DoctorFinding[]> {
  const rules = Object.values(
    pauseRulesFor(targetConfigOf(tools.project.config, target.name).pauseWhile, {
      isProduction: verdict.guardedAs === "production",
      knowsLag: target.lagSeconds !== undefined,
    }),
  );
  if (!rules.some((rule) => rule.collector.kind === "lag") || target.lagSeconds === undefined) return [];
  try {
    await target.lagSeconds();
    return [];
  } catch (e) {
    if (!(e instanceof HoldpointError) || e.code === "ERR_INTERNAL") throw e;
    return [
      look(
        "target",
        `a run would pause: ${problem(e)}`,
        e.next.length > 0 ? e.next : say(e.why ?? e.message),
      ),
    ];
  }
}

function storeFindings(tools: Toolbox, probe: MachineProbe, examined: Examined): DoctorFinding[] {
  const store = probe.file(tools.project.config.store);
  const beside = examined.target
    .ownPaths()
    .filter((p) => store !== null && probe.file(p)?.device === store.device);
  if (beside.length === 0) return [];
  return [
    look(
      "store",
      "what is kept to take changes back lies on the same disk as the target: one failure takes both",
      say("Put store: on another disk, or copy it elsewhere regularly."),
    ),
  ];
}

/** Whoever holds the credential needs no plan: said as it is, and worst where production can be reached by accident. */
function waysAround(probe: MachineProbe, examined: Examined): DoctorFinding[] {
  const { target, verdict, origins } = examined;
  if (verdict.guardedAs !== "production") return [];
  const own = new Set(origins.flatMap((o) => /^\$\{(.*)\}$/.exec(o.part)?.[1] ?? []));
  const named = probe.variablesNaming(target.name);
  const others = named.filter((n) => !own.has(n));
  const found: DoctorFinding[] = [];
  if (others.length > 0)
    found.push(
      stop(
        "way-around",
        `${others.join(", ")} ${others.length === 1 ? "names" : "name"} this target: any tool that reads ${others.length === 1 ? "it" : "them"} writes here without a plan`,
        [{ actor: "anyone", argv: ["unset", ...others] }],
      ),
    );
  found.push(...filesAround(probe, target.name));
  const exported = [...own].filter((n) => named.includes(n));
  if (exported.length > 0)
    found.push(
      look(
        "way-around",
        `${exported.join(", ")} is set in this shell, and every program started here inherits it`,
        say("Set it for holdpoint alone, by a wrapper or your secret store."),
      ),
    );
  const writable = target.ownPaths().filter((p) => probe.file(p)?.writable === true);
  const [file] = writable;
  if (file !== undefined) found.push(fileWayAround(probe, file));
  return found;
}

/** A file that every tool of the project loads is as open as a variable; one for clients of PostgreSQL serves holdpoint too. */
function filesAround(probe: MachineProbe, target: string): readonly DoctorFinding[] {
  const files = probe.credentialFiles(target);
  const dotenv = files.filter((f) => f.kind === "dotenv").map((f) => f.where);
  const clients = files.filter((f) => f.kind !== "dotenv").map((f) => f.where);
  return [
    ...(dotenv.length === 0
      ? []
      : [
          stop(
            "way-around",
            `${dotenv.join(", ")} ${dotenv.length === 1 ? "names" : "name"} this target: any tool that loads the file writes here without a plan`,
            say("Take the line out; give holdpoint the address by a wrapper or your secret store."),
          ),
        ]),
    ...(clients.length === 0
      ? []
      : [
          look(
            "way-around",
            `${clients.join(", ")} lets every client of PostgreSQL in here, and holdpoint by the same login`,
            say(
              "Keep this login for holdpoint's own user, or let it read only and give the one that writes to apply alone.",
            ),
          ),
        ]),
  ];
}

function fileWayAround(probe: MachineProbe, file: string): DoctorFinding {
  const mode = probe.file(file)?.mode ?? 0;
  if ((mode & 0o002) !== 0)
    return stop("way-around", `everybody on this machine can write ${file} (mode 0${mode.toString(8)})`, [
      { actor: "dba", argv: ["chmod", "o-w", file] },
    ]);
  return look(
    "way-around",
    `this login can write ${file} without holdpoint (mode 0${mode.toString(8)})`,
    say(
      "Give the file to a login of its own, and apply under that one; docs/threat-model.md says what this stops.",
    ),
  );
}

function problem(e: HoldpointError): string {
  return e.why === undefined ? e.message : `${e.message}: ${e.why}`;
}

function say(text: string): readonly NextStep[] {
  return [{ actor: "anyone", text }];
}

function ok(check: string, what: string): DoctorFinding {
  return { check, target: null, level: "ok", what, todo: [] };
}

function look(check: string, what: string, todo: readonly NextStep[]): DoctorFinding {
  return { check, target: null, level: "look", what, todo };
}

function stop(check: string, what: string, todo: readonly NextStep[] = []): DoctorFinding {
  return { check, target: null, level: "stop", what, todo };
}

function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}
