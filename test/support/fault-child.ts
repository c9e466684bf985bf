/**
 * Does acts in a process of its own, each with one fault: it is killed, or one statement or file operation fails. It
 * does what it is ordered, act after act, until a fault kills it or nobody orders any more.
 *
 * Argument: the project's folder. Messages: an {@link Order}, answered by "begun" and one {@link FaultReport}.
 */
import { HoldpointError, isMachineError, messageOf } from "../../src/base/errors.js";
import { exitCodeOf, exitOf } from "../../src/cli/exit-codes.js";
import { wire } from "../../src/cli/wiring.js";
import { applyPlan } from "../../src/operations/apply.js";
import { drill } from "../../src/operations/drill.js";
import { parseDamage } from "../../src/operations/merging/damage.js";
import { rescue } from "../../src/operations/rescue.js";
import {
  diffSnapshots,
  listSnapshots,
  restoreSnapshot,
  verifySnapshot,
} from "../../src/operations/kept-snapshots.js";
import { forgetRun, pruneSnapshots } from "../../src/operations/prune.js";
import { takeSnapshot } from "../../src/operations/snapshot.js";
import { statusOf } from "../../src/operations/status.js";
import type { Toolbox } from "../../src/operations/toolbox.js";
import { undoRun } from "../../src/operations/undo.js";
import type { Act, FaultReport, Order } from "./fault.js";
import { arm, disarm, faulty } from "./fault-points.js";

const [dir = ""] = process.argv.slice(2);
process.chdir(dir);

/** What it came to: a plan, a snapshot, a run. */
async function perform(tools: Toolbox, act: Act): Promise<string | null> {
  const everything = { tables: [], columns: [], where: undefined };
  switch (act.kind) {
    case "apply":
      return (await applyPlan(tools, { ref: act.plan, tokens: [], dryRun: false, confirm: async () => {} }))
        .run;
    case "undo": {
      const undone = await undoRun(tools, {
        ...everything,
        runs: [act.run],
        onConflict: "stop",
        resolutions: undefined,
        key: "keys/dana",
        out: undefined,
        reason: null,
        confirm: async () => {},
      });
      return undone.made?.id ?? null;
    }
    case "rescue": {
      const made = await rescue(tools, {
        ...everything,
        on: act.on,
        from: null,
        damage: [parseDamage(act.damage)],
        timeColumns: [],
        authors: [],
        resolutions: undefined,
        key: "keys/dana",
        out: undefined,
        reason: null,
        born: () => undefined,
      });
      return made.made?.id ?? null;
    }
    case "take":
      return (await takeSnapshot(tools, act.on, act.tables)).manifest.id;
    case "verify":
      return (await verifySnapshot(tools, act.snapshot)).manifest.id;
    case "diff":
      return String((await diffSnapshots(tools, act.snapshot, null, [])).changed.rows);
    case "drill": {
      const { lost, missing, broken, restored } = await drill(tools, act.on, null);
      return [lost, missing, restored - broken].join();
    }
    case "restore":
      return (await restoreSnapshot(tools, act.snapshot, act.to)).id;
    case "prune": {
      const refs = [act.snapshot];
      return (
        await pruneSnapshots(tools, { refs, on: null, keep: null, before: null, evenIfNeeded: false })
      ).removed.join();
    }
    case "forget":
      return (await forgetRun(tools, act.run)).run;
  }
}

async function snapshotsOf(tools: Toolbox): Promise<FaultReport["snapshots"]> {
  const found = [];
  for (const { record, why } of await listSnapshots(tools, null)) {
    const verified = await verifySnapshot(tools, record.id).then(
      () => null,
      (e: unknown) => messageOf(e),
    );
    found.push({ id: record.id, why: why ?? verified });
  }
  return found;
}

/** How an error ends a command: what has no code of ours is a fault of ours, unless the machine is to blame. */
function endOf(e: unknown): Pick<FaultReport, "code" | "exit" | "targetChanged" | "message"> {
  if (e instanceof HoldpointError)
    return { code: e.code, exit: exitOf(e), targetChanged: e.targetChanged, message: messageOf(e) };
  const code = isMachineError(e) ? "ERR_MACHINE_FAILED" : "ERR_INTERNAL";
  return { code, exit: exitCodeOf(code), targetChanged: "no", message: (e as Error).stack ?? messageOf(e) };
}

async function obey({ act, fault, isWatched }: Order): Promise<FaultReport> {
  const wired = await wire({
    cwd: dir,
    env: { PATH: process.env["PATH"], HOME: dir },
    isInteractive: false,
    progress: { begin: () => () => {}, check: () => {}, wave: () => {} },
    narrate: () => {},
    interruption: { requested: () => null, insisted: () => false },
  });
  try {
    const statusBefore =
      fault.kind === "none" && act.kind === "apply"
        ? ((await statusOf(wired.tools, act.plan)).runs[0]?.state ?? null)
        : null;
    const tools = faulty(wired.tools);
    process.send?.("begun");
    const began = performance.now();
    arm(fault, isWatched ? dir : null);
    const ended = await perform(tools, act).then(
      (result) => ({ ok: true, result, code: null, exit: 0, targetChanged: "yes", message: "" }),
      (e: unknown) => ({ ok: false, result: null, ...endOf(e) }),
    );
    const { counted, instants } = disarm();
    const report = {
      ...ended,
      counted,
      instants,
      statusBefore,
      tookMs: performance.now() - began,
      again: null,
      snapshots: [],
      ledgerIsWhole: false,
    };
    if (fault.kind !== "none") return report;
    const again =
      act.kind !== "apply"
        ? null
        : await perform(wired.tools, act).then(
            () => null,
            (e: unknown) => (e instanceof HoldpointError ? e.code : messageOf(e)),
          );
    return {
      ...report,
      again,
      snapshots: act.kind === "apply" ? [] : await snapshotsOf(wired.tools),
      ledgerIsWhole: (await wired.tools.ledger()).verify([]).ok,
    };
  } finally {
    wired.close();
  }
}

process.on("message", (order: Order) => {
  obey(order).then(
    (report) => process.send?.(report),
    (e: unknown) => {
      process.stderr.write(`${e instanceof Error ? (e.stack ?? e.message) : String(e)}\n`);
      process.exit(1);
    },
  );
});
process.on("disconnect", () => process.exit(0));
