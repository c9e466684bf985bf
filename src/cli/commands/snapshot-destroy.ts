/** `snapshot prune` and `snapshot forget`: rows that are kept no longer. */
import { parseDuration, stamp } from "../../base/clock.js";
import { UsageError } from "../../base/errors.js";
import { forgetRun, pruneSnapshots } from "../../operations/prune.js";
import { count, plural } from "../../render/numbers.js";
import { renderFacts } from "../../render/snapshot.js";
import { type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";

interface PruneFlags {
  readonly on?: string;
  readonly keep?: string;
  readonly olderThan?: string;
  readonly evenIfNeeded?: boolean;
}

/** `snapshot prune`. */
export const prune: Register = (parent, run) => {
  const command = parent
    .command("prune")
    .argument("[snapshot...]", "ids, or beginnings of ids")
    .option("--on <target>", "this target's only")
    .option("--keep <n>", "all but the newest n")
    .option("--older-than <duration>", "those older than this, e.g. 30d")
    .option("--even-if-needed", "also those that the undo of a run still needs")
    .action((refs: readonly string[], flags: PruneFlags) =>
      run("snapshot-prune", (cx) => pruned(cx, refs, flags)),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "destroy row data that is no longer needed; the ledger keeps digests",
    examples: [
      { line: "holdpoint snapshot prune --on elb-prod --older-than 30d", what: "what no undo needs" },
    ],
    exits: [],
  });
};

async function pruned(cx: Context, refs: readonly string[], flags: PruneFlags): Promise<Outcome> {
  const tools = await cx.tools();
  const { removed, kept } = await pruneSnapshots(tools, {
    refs,
    on: flags.on ?? null,
    keep: keepOf(flags.keep),
    before: beforeOf(flags.olderThan, tools.clock.now()),
    evenIfNeeded: flags.evenIfNeeded === true,
  });
  return {
    result: { removed, kept: kept.map((k) => ({ snapshot: k.id, needed_by: k.neededBy })) },
    text: cx.screen(renderFacts, {
      headline: `Destroyed the rows of ${plural(removed.length, "snapshot")}${kept.length === 0 ? "" : `, kept ${count(kept.length)} that an undo still needs`}.`,
      facts: [
        ...removed.map((id) => ({ label: "Removed", text: id })),
        ...kept.map((k) => ({ label: "Kept", text: `${k.id}, needed to undo ${k.neededBy.join(", ")}` })),
      ],
      state: "The target was not touched; digests and counts stay in the ledger.",
      next: [],
    }),
  };
}

function keepOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--keep ${text} is no number of snapshots`,
    next: [{ actor: "requester", text: "Give a whole number, such as --keep 5." }],
  });
}

function beforeOf(text: string | undefined, now: Date): string | null {
  if (text === undefined) return null;
  const age = parseDuration(text);
  if (age !== undefined) return stamp(new Date(now.getTime() - age * 1000));
  throw new UsageError({
    code: "ERR_USAGE",
    message: `--older-than ${text} is no duration`,
    next: [{ actor: "requester", text: "Give a duration, such as --older-than 12h or --older-than 30d." }],
  });
}

/** `snapshot forget`. */
export const forget: Register = (parent, run) => {
  const command = parent
    .command("forget")
    .argument("<run>", "a run's id, or the beginning of one")
    .option("--confirm <run>", "the run's id, typed: it can never be undone afterwards")
    .action((ref: string, flags: { readonly confirm?: string }) =>
      run("snapshot-forget", async (cx) => {
        const typed =
          flags.confirm ??
          (await cx.prompter.ask({
            message: "Type the run to destroy its rows for ever:",
            needs: "destroying a run's rows needs its name",
            flag: ["--confirm", "RUN"],
          }));
        if (typed !== ref)
          throw new UsageError({
            code: "ERR_USAGE",
            message: "that is not the run that was named",
            why: `${JSON.stringify(typed)} is not ${ref}`,
          });
        const { run: id, plan, snapshots } = await forgetRun(await cx.tools(), ref);
        return {
          result: { run: id, plan, snapshots },
          text: cx.screen(renderFacts, {
            headline: `The rows of ${id} are destroyed: it can no longer be undone or shown.`,
            facts: [{ label: "Plan", text: plan }, ...snapshots.map((text) => ({ label: "Snapshot", text }))],
            state: "The target was not touched; digests and counts stay in the ledger.",
            next: [],
          }),
        };
      }),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "destroy what is kept of a run's rows, and with it the way back",
    examples: [
      {
        line: "holdpoint snapshot forget rn_5c0e2fqa --confirm rn_5c0e2fqa",
        what: "digests stay in the ledger",
      },
    ],
    exits: [22],
  });
};
