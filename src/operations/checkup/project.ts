/** What is looked at before any target: configuration, people, pipelines, keys, policies, rules, our own files, the ledger. */
import { NAMESPACES } from "../../approval/requirement.js";
import { HoldpointError } from "../../base/errors.js";
import { lintAssertions } from "../../policy/lint-assertions.js";
import { lintPolicies } from "../../policy/lint.js";
import { runPolicyTests } from "../../policy/test-cases.js";
import { textsFact } from "../../ledger/facts.js";
import { groupsOf } from "../check-policies.js";
import type { Toolbox } from "../toolbox.js";
import { type DoctorFinding, type MachineProbe, counted, look, ok, problem, say, stop } from "./finding.js";

/** A rule is looked at once it could have spoken this often. */
const PLANS_LOOKED_AT = 100;
const FEWEST_PLANS = 10;

/** Whether targets are named, and claim what they are. */
export function configFinding(tools: Toolbox): DoctorFinding {
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
export function pipelineFindings(tools: Toolbox): DoctorFinding[] {
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

/** Whether there are people who can approve. */
export function peopleFindings(tools: Toolbox): DoctorFinding[] {
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

/** Whether there is a key to sign with, and who holds it. */
export async function keyFindings(tools: Toolbox): Promise<DoctorFinding[]> {
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

/** Whether policies can be read, mean something and pass their tests. */
export async function policyFindings(tools: Toolbox): Promise<DoctorFinding[]> {
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
export async function ruleFindings(tools: Toolbox): Promise<DoctorFinding[]> {
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

/** Whether others can write what decides here. */
export function fileFindings(tools: Toolbox, probe: MachineProbe): DoctorFinding[] {
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

/** Whether the history holds. */
export async function ledgerFindings(tools: Toolbox): Promise<DoctorFinding[]> {
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
