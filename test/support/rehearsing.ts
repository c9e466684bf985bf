/** Rehearsing and applying through any target, whole and in memory. */
import type { Change, ChangeSet, ChangeSink, TableShape } from "../../src/changeset/change.js";
import { changeSet, sourceOf } from "../../src/changeset/source.js";
import type { Value } from "../../src/changeset/value.js";
import type {
  BatchOutcome,
  Rehearsal,
  RehearsalKind,
  RunnableJob,
  SequenceMove,
  Target,
  WriteProblem,
} from "../../src/target/target.js";

/** A job of these statements. */
export function sqlJob(
  ...statements: readonly (
    | string
    | { readonly text: string; readonly values: Readonly<Record<string, Value>> }
  )[]
): RunnableJob {
  return {
    kind: "sql",
    statements: statements.map((s, i) =>
      typeof s === "string" ? { text: s, line: i + 1, values: {} } : { ...s, line: i + 1 },
    ),
  };
}

/** A rehearsal with its effect. */
export interface Rehearsed {
  readonly rehearsal: Rehearsal;
  readonly effect: ChangeSet;
}

/** Rehearses and collects; the ChangeSet's own checks refuse what is malformed. */
export async function rehearseAll(target: Target, job: RunnableJob, how?: RehearsalKind): Promise<Rehearsed> {
  const shapes: TableShape[] = [];
  const changes: Change[] = [];
  const sink: ChangeSink = {
    table: (shape) => void shapes.push(shape),
    add: (change) => void changes.push(change),
  };
  const rehearsal = await target.rehearse(job, sink, how);
  return { rehearsal, effect: changeSet(shapes, changes) };
}

/** Writes a whole ChangeSet in one batch and commits it if nothing was found. */
export async function applyAll(
  target: Target,
  effect: ChangeSet,
  sequences: readonly SequenceMove[] = [],
): Promise<BatchOutcome & { readonly wrong: readonly WriteProblem[] }> {
  const session = await target.openWriter();
  try {
    await session.begin();
    const outcome = await session.write(sourceOf(effect), sequences);
    const wrong = outcome.problems.length > 0 ? [] : await session.verify(sourceOf(effect));
    if (outcome.problems.length + wrong.length > 0) await session.rollback();
    else await session.commit();
    return { ...outcome, wrong };
  } finally {
    await session.close();
  }
}
