/** What the roles of a target's connections are used for, and what one has that its use does not need. */
import { targetConfigOf } from "../../config/config.js";
import type { RoleUse } from "../../target/target.js";
import type { Toolbox } from "../toolbox.js";
import type { Examined } from "./examine.js";

/** What planning asks of its role: no more than looking where jobs are rehearsed on a clone. */
export function usesOfPlanning({ rehearseOn }: { readonly rehearseOn: string | null }): readonly RoleUse[] {
  return rehearseOn === null ? ["look", "rehearse"] : ["look"];
}

/**
 * The warning of a plan whose role could write without need. A job that is rehearsed in place needs the job's own rights
 * (in a transaction that cannot commit), and never the right to write the marks, without which nothing can be applied. A
 * job that is rehearsed on a clone needs to read the target and nothing else. With one connection for everything, in place,
 * the role is the one that writes: nothing is said.
 */
export async function needlessRights(tools: Toolbox, { target }: Examined): Promise<readonly string[]> {
  const configured = targetConfigOf(tools.project.config, target.name);
  if (target.privileges === undefined) return [];
  if (configured.planUrl === null && configured.rehearseOn === null) return [];
  const { role, beyond } = await target.privileges(usesOfPlanning(configured), [], []);
  if (beyond.length === 0) return [];
  const needed =
    configured.rehearseOn === null
      ? "a rehearsal needs no more than its jobs do"
      : `jobs are rehearsed on ${configured.rehearseOn}, and planning only reads here`;
  const next = configured.planUrl === null ? "; plan_url can name a role that cannot" : "";
  return [`planned as ${role}, which could write without need: ${beyond.join(", ")}; ${needed}${next}`];
}
