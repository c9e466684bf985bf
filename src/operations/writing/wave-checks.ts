/** What the trust bundle names to be asked after each wave: programs that end with 0 when the world still works. */
import { targetConfigOf } from "../../config/config.js";
import type { Examined } from "../judging/examine.js";
import type { GuardOutcome, LoadedPlan, Toolbox } from "../toolbox.js";

/** Where a run is when its checks are asked. */
export interface WavePlace {
  readonly run: string;
  readonly wave: number;
  readonly waves: number;
  /** Rows written so far. */
  readonly rows: number;
}

/** A check that did not pass. */
export interface FailedCheck {
  readonly check: string;
  readonly wave: number;
  readonly waves: number;
  readonly why: string;
}

/**
 * Asks every check of the target in the order of their names; the first that does not pass is the answer, null when
 * all do. What a program prints is no argument: only its exit counts, and one that cannot be started has failed.
 */
export async function failedCheck(
  tools: Toolbox,
  of: { readonly plan: LoadedPlan; readonly examined: Examined },
  place: WavePlace,
): Promise<FailedCheck | null> {
  const { name } = of.examined.target;
  const checks = Object.entries(targetConfigOf(tools.project.config, name).checks);
  for (const [check, command] of checks.sort(([a], [b]) => (a < b ? -1 : 1))) {
    const done = tools.progress.begin(`check ${check} after wave ${place.wave} of ${place.waves}`);
    let outcome: GuardOutcome;
    try {
      outcome = await tools.guard(command, {
        ...guardData(of.plan, of.examined),
        HOLDPOINT_RUN: place.run,
        HOLDPOINT_CHECK: check,
        HOLDPOINT_WAVE: String(place.wave),
        HOLDPOINT_WAVES: String(place.waves),
        HOLDPOINT_ROWS_WRITTEN: String(place.rows),
      });
    } finally {
      done();
    }
    if (outcome.kind !== "passed") {
      return { check, wave: place.wave, waves: place.waves, why: outcome.why };
    }
    tools.progress.check(`check ${check} passed after wave ${place.wave} of ${place.waves}`);
  }
  return null;
}

/** What every check, hook and collector is told, as variables; never row values. */
export function guardData(plan: LoadedPlan | null, examined: Examined): Readonly<Record<string, string>> {
  return {
    HOLDPOINT_TARGET: examined.target.name,
    HOLDPOINT_ENVIRONMENT: examined.verdict.guardedAs,
    ...(plan === null
      ? {}
      : { HOLDPOINT_PLAN: plan.id, HOLDPOINT_ROWS: String(plan.statement.changeset.rows) }),
  };
}
