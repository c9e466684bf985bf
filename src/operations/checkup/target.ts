/** What is looked at in a target: whether it can be planned for, and what its roles may. */
import { HoldpointError, isOutOfReach } from "../../base/errors.js";
import { type Purpose, targetConfigOf } from "../../config/config.js";
import { type Examined, withTarget } from "../judging/examine.js";
import { usesOfPlanning } from "../judging/role-use.js";
import { requirePlannable } from "../plan.js";
import { statementTexts } from "../../jobs/sql-file.js";
import type { PrivilegeCheck, RolePrivileges, RoleUse } from "../../target/target.js";
import { pauseRulesFor } from "../writing/collectors.js";
import type { Toolbox } from "../toolbox.js";
import { type DoctorFinding, type MachineProbe, look, ok, problem, say, stop } from "./finding.js";
import { storeFindings, waysAround } from "./ways-around.js";

/** All that is looked at in one target. */
export async function targetFindings(
  tools: Toolbox,
  probe: MachineProbe,
  name: string,
): Promise<DoctorFinding[]> {
  return [...(await examinedFindings(tools, probe, name)), ...(await roleFindings(tools, probe, name))];
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
async function roleFindings(tools: Toolbox, probe: MachineProbe, name: string): Promise<DoctorFinding[]> {
  const configured = tools.project.config.targets[name];
  // That there is no such target was found already.
  if (configured === undefined) return [];
  const tables = [...new Set(Object.values(tools.project.config.jobs).flatMap((job) => job.scope ?? []))];
  const statements = statementsOfJobs(tools, probe);
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
      const role = await privilegesOf(tools, name, purpose, uses, { tables, statements });
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

/** Of all jobs that are declared as SQL; a file that cannot be read is told where it is planned. */
function statementsOfJobs({ project }: Toolbox, probe: MachineProbe): readonly string[] {
  return Object.values(project.config.jobs).flatMap(({ source }) =>
    source.kind === "sql" ? statementTexts(probe.text(source.path) ?? "", "postgres") : [],
  );
}

async function privilegesOf(
  tools: Toolbox,
  name: string,
  purpose: Purpose,
  uses: readonly RoleUse[],
  { tables, statements }: { readonly tables: readonly string[]; readonly statements: readonly string[] },
): Promise<RolePrivileges | null> {
  const { target } = await tools.openTarget(name, purpose);
  try {
    return (await target.privileges?.(uses, tables, statements)) ?? null;
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
