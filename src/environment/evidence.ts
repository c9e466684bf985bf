/**
 * Evidence about where we are, kept apart by side. Only what the target says decides; what this machine
 * says is shown because it misleads people, and counts for nothing.
 */

/** Environments a team names. Order of danger: production, staging, development. */
export const ENVIRONMENTS = ["production", "staging", "development"] as const;
/** A named environment. */
export type Environment = (typeof ENVIRONMENTS)[number];

/** What follows from the evidence. `unproven` is guarded by every rule of production. */
export type VerdictName = Environment | "unproven";

/** `strong` decides, `medium` can raise doubt, `none` never counts. */
export type Strength = "strong" | "medium" | "none";

/** One signal. */
export interface Evidence {
  /** Short name shown to people and scripts: `marker`, `file identity`, `NODE_ENV` … */
  readonly source: string;
  readonly side: "target" | "machine";
  readonly strength: Strength;
  /** The environment it speaks for; null when it is absent or says nothing about one. */
  readonly says: Environment | null;
  /** Whether what was expected here was found. `contradicts`: something else was. */
  readonly state: "agrees" | "absent" | "contradicts" | "informs";
  /** What was read, in words. */
  readonly detail: string;
  /** Both sides of a contradiction. */
  readonly expected?: string;
  readonly found?: string;
}

/** The verdict, with what led to it. */
export interface Verdict {
  readonly name: VerdictName;
  /** Which rules apply: `unproven` is guarded as production. */
  readonly guardedAs: Environment;
  /** True when strong signals of the target contradict each other or the configuration: refused, exit 33. */
  readonly contradicted: boolean;
  readonly because: readonly string[];
  readonly evidence: readonly Evidence[];
}
