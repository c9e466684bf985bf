/**
 * Where a job is rehearsed: on the target, or on the clone that the configuration names (`rehearse_on`), so that a job with
 * heavy locks or much to write never runs on production before it is approved. The rows that are signed are then those of
 * the clone; each is held against the target when the plan is approved and applied, as always.
 */
import { canonical } from "../base/canonical.js";
import { RefusedError, TargetError } from "../base/errors.js";
import type { ChangeSink } from "../changeset/change.js";
import { targetConfigOf } from "../config/config.js";
import type { Identification, Rehearsal, RehearsalKind, RunnableJob, Target } from "../target/target.js";
import type { Examined } from "./judging/examine.js";
import type { Toolbox } from "./toolbox.js";

/** A clone as the plan's statement names it. */
export interface CloneUsed {
  readonly name: string;
  /** The identity in its marker, where it has one: a true copy has the target's. */
  readonly identity: string | null;
  readonly place: Readonly<Record<string, string>>;
}

/** What a rehearsal found, and on which clone, if on one. */
export interface PlacedRehearsal extends Rehearsal {
  readonly clone?: CloneUsed;
}

/**
 * Rehearses the job where the configuration says.
 * @throws RefusedError ERR_ENV_CONTRADICTED when the clone is the target itself, or of another kind; TargetError
 * ERR_DRIFT_SCHEMA when its schema or settings are not the target's.
 */
export async function rehearseJob(
  tools: Toolbox,
  examined: Examined,
  job: RunnableJob,
  sink: ChangeSink,
  how?: RehearsalKind,
): Promise<PlacedRehearsal> {
  return await onRehearsalPlace(tools, examined, async (place, clone) => {
    if (clone === null) return await place.rehearse(job, sink, how);
    const schema = await sameSchema(examined.target, place);
    const rehearsal = await place.rehearse(job, sink, how);
    // Shares are those of the target, and so is the schema that must not drift.
    return { ...rehearsal, where: "clone", schema, rowsBefore: {}, lockMs: 0, clone };
  });
}

/** Runs `work` with the clone that the configuration names, or with the target itself. */
export async function onRehearsalPlace<T>(
  tools: Toolbox,
  { target, identification }: Examined,
  work: (place: Target, clone: CloneUsed | null) => Promise<T>,
): Promise<T> {
  const name = targetConfigOf(tools.project.config, target.name).rehearseOn;
  if (name === null) return await work(target, null);
  const { target: clone } = await tools.openTarget(name);
  try {
    const found = await clone.identify();
    if (clone.adapter !== target.adapter) throw notAClone(target, name, `it is of the kind ${clone.adapter}`);
    if (isSame(found, identification)) throw notAClone(target, name, "it is the target itself");
    return await work(clone, { name, identity: found.marker?.identity ?? null, place: found.place });
  } finally {
    await clone.close();
  }
}

/** A copy of a whole cluster has the place of its original; which server runs it tells them apart. */
function isSame(one: Identification, other: Identification): boolean {
  if (one.instance !== undefined && other.instance !== undefined) return one.instance === other.instance;
  return canonical(one.place) === canonical(other.place);
}

async function sameSchema(target: Target, clone: Target): Promise<Rehearsal["schema"]> {
  const [there, here] = [await clone.schema(), await target.schema()];
  const settings = Object.keys({ ...there.settings, ...here.settings }).filter(
    (s) => there.settings[s] !== here.settings[s],
  );
  if (there.fingerprint === here.fingerprint && settings.length === 0) return here;
  throw new TargetError({
    code: "ERR_DRIFT_SCHEMA",
    message: `${clone.name} is no clone of ${target.name} as it is now`,
    why:
      settings.length > 0
        ? `settings differ: ${settings.map((s) => `${s} is ${there.settings[s] ?? "unset"} there and ${here.settings[s] ?? "unset"} here`).join("; ")}`
        : "the schema is another: what the job does there says nothing about here",
    next: [{ actor: "dba", text: `Make ${clone.name} again from ${target.name}.` }],
  });
}

function notAClone(target: Target, name: string, why: string): RefusedError {
  return new RefusedError({
    code: "ERR_ENV_CONTRADICTED",
    message: `${name} is no clone to rehearse ${target.name} on`,
    why,
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", name] }],
  });
}
