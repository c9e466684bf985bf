/**
 * Two connections to one target: whoever plans looks at the database that is written later, or at nothing that counts. A
 * replica, or a copy that was brought up beside the primary, has system identifier, oid and marker of the original; which
 * running server answers tells them apart.
 */
import { canonical } from "../../base/canonical.js";
import { isOutOfReach, messageOf } from "../../base/errors.js";
import type { Purpose, TargetConfig } from "../../config/config.js";
import type { Evidence } from "../../environment/evidence.js";
import type { Identification } from "../../target/target.js";
import type { Toolbox } from "../toolbox.js";

/**
 * What the other connection says about itself beside this one; nothing where the configuration names one connection only.
 * A connection that this machine has no way to (its variable is not set, its password is elsewhere) is not compared and
 * said so: pin, place and marker have been held against this one all the same.
 */
export async function otherConnection(
  tools: Pick<Toolbox, "openTarget">,
  configured: Pick<TargetConfig, "name" | "planUrl">,
  purpose: Purpose,
  here: Identification,
): Promise<readonly Evidence[]> {
  if (configured.planUrl === null) return [];
  const other: Purpose = purpose === "plan" ? "write" : "plan";
  const source = other === "plan" ? "plan_url" : "url";
  let there: Identification;
  try {
    const { target } = await tools.openTarget(configured.name, other);
    try {
      there = await target.identify();
    } finally {
      await target.close();
    }
  } catch (e) {
    if (!isOutOfReach(e)) throw e;
    const detail = `not in reach from here, and not compared: ${messageOf(e)}`;
    return [{ source, side: "target", strength: "none", says: null, state: "informs", detail }];
  }
  const found = firstDifference(here, there);
  const base = { source, side: "target", strength: "strong", says: null } as const;
  if (found === null) return [{ ...base, state: "agrees", detail: "the same database of the same server" }];
  const detail = `leads to another place than ${other === "plan" ? "url" : "plan_url"}`;
  return [{ ...base, state: "contradicts", detail, expected: found[0], found: found[1] }];
}

/** The first thing by which the two are not one database, as this connection and the other one tell it. */
function firstDifference(
  here: Identification,
  there: Identification,
): readonly [here: string, there: string] | null {
  const sides = (read: (i: Identification) => string): readonly [string, string] => [read(here), read(there)];
  const looked = [
    sides((i) => canonical(i.place)),
    sides((i) => i.marker?.identity ?? "no marker"),
    sides((i) => `the server ${i.instance ?? "that does not say which it is"}`),
  ];
  return looked.find(([one, other]) => one !== other) ?? null;
}
