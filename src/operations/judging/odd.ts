/** Rows unlike the rest of a plan, by rules that the configuration completes with tenants and protected values. */
import type { ChangeSource } from "../../changeset/change.js";
import { type Odd, OddInProgress, type OddOptions, oddRows } from "../../changeset/odd.js";
import type { Toolbox } from "../toolbox.js";

/** Odd rows that a screen lists in full. */
export const ODD_ROWS_LISTED = 20;

/** The odd rows of a plan on `target`: the same on every machine that reads the same plan and configuration. */
export function oddOf(tools: Toolbox, target: string, changes: ChangeSource): Odd {
  return oddRows(changes, optionsOf(tools, target));
}

/** {@link oddOf} for whoever has the changes passing anyway: first a sink, then the odd rows. */
export function startOdd(tools: Toolbox, target: string): OddInProgress {
  return new OddInProgress(optionsOf(tools, target));
}

function optionsOf(tools: Toolbox, target: string): OddOptions {
  const config = tools.project.config.targets[target];
  return { limit: ODD_ROWS_LISTED, tenants: config?.tenant ?? [], protect: config?.protect ?? [] };
}
