/**
 * Doctor: is this project set up so that holdpoint can keep its promises here? Looks at configuration, keys,
 * people, policies, store, ledger and targets, and at ways around holdpoint that lie open. Reads only.
 */
import { HoldpointError } from "../base/errors.js";
import type { Toolbox } from "./toolbox.js";
import { type DoctorFinding, type MachineProbe, problem, stop } from "./checkup/finding.js";
import {
  configFinding,
  fileFindings,
  keyFindings,
  ledgerFindings,
  peopleFindings,
  pipelineFindings,
  policyFindings,
  ruleFindings,
} from "./checkup/project.js";
import { targetFindings } from "./checkup/target.js";

export type { DoctorFinding } from "./checkup/finding.js";

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
