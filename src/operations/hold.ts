/**
 * Holding a target: no plan begins or goes on there until it is released, but those that the hold names. The
 * hold lies in the target itself, so a machine with another ledger, or none, is stopped too.
 */
import { stamp } from "../base/clock.js";
import { RefusedError, TargetError, UsageError } from "../base/errors.js";
import { targetConfigOf } from "../config/config.js";
import { headOf, type SealedEntry } from "../ledger/entry.js";
import { textFact } from "../ledger/facts.js";
import type { Note } from "../target/marker.js";
import {
  type Examined,
  refuseContradiction,
  refuseOtherBundle,
  requireHistory,
  withTarget,
} from "./judging/examine.js";
import { holdIn, type Hold } from "./recall/held.js";
import { loadPlan } from "./recall/stored-plan.js";
import type { Toolbox } from "./toolbox.js";
import { guardData } from "./writing/wave-checks.js";

/** A target that was held or released. */
export interface Held {
  readonly target: string;
  readonly environment: string;
  readonly by: string;
  readonly reason: string;
  /** The hold that was there before. */
  readonly before: Hold | null;
  /** Plans that may go on. */
  readonly exempted: readonly string[];
  /** The configured program that ran: `hold` or `release`; null where none is configured. */
  readonly hook: string | null;
}

/** What is asked. */
export interface HoldRequest {
  readonly target: string;
  readonly reason: string;
  /** Plans that go on in spite of the hold. */
  readonly except: readonly string[];
}

/**
 * Holds the target, also while a run is under way: that run stops before its next batch.
 * @throws UsageError when the reason is blank; TargetError ERR_CHECK_FAILED (42) when the hook failed: the hold stands.
 */
export async function holdTarget(tools: Toolbox, request: HoldRequest): Promise<Held> {
  requireReason(request.reason, "hold");
  const exempted = await digestsOf(tools, request.except);
  return withPinned(tools, request.target, async (examined) => {
    const before = holdIn(await examined.target.notes());
    const by = actorOf(tools);
    const note = noteOf(tools, examined, by, request.reason);
    await keep(tools, examined, "held", { by, reason: request.reason, except: exempted.map((e) => e.id) }, [
      { ...note, kind: "held" },
      ...exempted.map((e): Note => ({ ...note, kind: "exempted", subject: e.digest })),
    ]);
    const held = heldOf(
      examined,
      by,
      request.reason,
      before,
      exempted.map((e) => e.id),
    );
    return { ...held, hook: await runHook(tools, examined, "hold", held) };
  });
}

/**
 * Ends the hold.
 * @throws UsageError ERR_USAGE when nothing is held.
 */
export async function releaseTarget(tools: Toolbox, request: Omit<HoldRequest, "except">): Promise<Held> {
  requireReason(request.reason, "release");
  return withPinned(tools, request.target, async (examined) => {
    const before = holdIn(await examined.target.notes());
    if (before === null) throw notHeld(request.target);
    const by = actorOf(tools);
    const note = noteOf(tools, examined, by, request.reason);
    await keep(tools, examined, "released", { by, reason: request.reason }, [{ ...note, kind: "released" }]);
    const held = heldOf(examined, by, request.reason, before, []);
    return { ...held, hook: await runHook(tools, examined, "release", held) };
  });
}

/** Holds that the ledger knows of and that no release ended, by target: for `status`, which opens no target. */
export async function holdsInLedger(
  tools: Toolbox,
): Promise<
  readonly { readonly target: string; readonly by: string; readonly at: string; readonly reason: string }[]
> {
  const holds = new Map<string, { target: string; by: string; at: string; reason: string }>();
  for (const { entry } of (await tools.ledger()).entries({ kinds: ["held", "released"] })) {
    if (entry.target === null) continue;
    holds.delete(entry.target);
    if (entry.kind === "released") continue;
    holds.set(entry.target, {
      target: entry.target,
      by: textFact(entry, "by") ?? "?",
      at: entry.at,
      reason: textFact(entry, "reason") ?? "",
    });
  }
  return [...holds.values()];
}

async function withPinned<T>(
  tools: Toolbox,
  name: string,
  work: (examined: Examined) => Promise<T>,
): Promise<T> {
  return withTarget(
    tools,
    name,
    async (examined) => {
      refuseContradiction(examined);
      await refuseOtherBundle(tools, examined);
      await requireHistory(tools, examined);
      if (examined.marker !== null) return work(examined);
      throw new RefusedError({
        code: "ERR_ENV_NOT_PINNED",
        message: `${name} is not pinned, so it cannot be held`,
        why: "a hold is kept in the target's marker, and there is none",
        next: [{ actor: "dba", argv: ["holdpoint", "env", "pin", name] }],
      });
    },
    "write",
  );
}

async function keep(
  tools: Toolbox,
  examined: Examined,
  kind: "held" | "released",
  facts: SealedEntry["entry"]["facts"],
  notes: readonly Note[],
): Promise<void> {
  const sealed = (await tools.ledger()).append({ kind, target: examined.target.name, facts });
  // Beside a run that is under way, where the target can: a hold that waited for the run would hold nothing.
  const open = examined.target.openNotes ?? examined.target.openWriter;
  const session = await open();
  try {
    await session.begin();
    for (const note of notes) await session.addNote(note);
    await session.anchor(headOf(sealed));
    await session.commit();
  } catch (e) {
    await session.rollback();
    throw e;
  } finally {
    await session.close();
  }
}

/** The program that stops, or starts again, what would get in the way. It fails loudly; the hold itself stands. */
async function runHook(
  tools: Toolbox,
  examined: Examined,
  name: "hold" | "release",
  held: Omit<Held, "hook">,
): Promise<string | null> {
  const hook = targetConfigOf(tools.project.config, examined.target.name).hooks[name];
  if (hook === undefined) return null;
  const done = tools.progress.begin(`running the ${name} hook of ${examined.target.name}`);
  try {
    const outcome = await tools.guard(hook, {
      ...guardData(null, examined),
      HOLDPOINT_HOOK: name,
      HOLDPOINT_REASON: held.reason,
      HOLDPOINT_BY: held.by,
    });
    if (outcome.kind === "passed") return name;
    throw hookFailed(examined.target.name, name, outcome.why);
  } finally {
    done();
  }
}

function hookFailed(target: string, name: "hold" | "release", why: string): TargetError {
  return new TargetError({
    code: "ERR_CHECK_FAILED",
    message: `the ${name} hook of ${target} failed`,
    why,
    state:
      name === "hold"
        ? `${target} is held all the same; no row was changed.`
        : `${target} is released all the same; no row was changed.`,
    next: [{ actor: "anyone", text: `Do by hand what the ${name} hook does.` }],
  });
}

async function digestsOf(
  tools: Toolbox,
  refs: readonly string[],
): Promise<readonly { readonly id: string; readonly digest: string }[]> {
  const found: { readonly id: string; readonly digest: string }[] = [];
  for (const ref of refs) {
    const plan = await loadPlan(tools, ref);
    found.push({ id: plan.id, digest: plan.digest });
    plan.close();
  }
  return found;
}

function noteOf(tools: Toolbox, examined: Examined, by: string, reason: string): Omit<Note, "kind"> {
  return {
    subject: examined.marker?.identity ?? "",
    at: stamp(tools.clock.now()),
    by,
    reason: reason.trim(),
  };
}

/** Whoever the machine says it is: a hold is no signature, it stops mistakes. */
function actorOf(tools: Toolbox): string {
  const claims = tools.claims();
  return `${claims["login"] ?? "unknown"}@${claims["host"] ?? "unknown"}`;
}

function heldOf(
  examined: Examined,
  by: string,
  reason: string,
  before: Hold | null,
  exempted: readonly string[],
): Omit<Held, "hook"> {
  const environment = examined.verdict.name;
  return { target: examined.target.name, environment, by, reason: reason.trim(), before, exempted };
}

function requireReason(reason: string, what: string): void {
  if (reason.trim() !== "") return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: `a ${what} needs a reason`,
    why: "--reason is blank; whoever is stopped reads it",
  });
}

function notHeld(target: string): UsageError {
  return new UsageError({
    code: "ERR_USAGE",
    message: `${target} is not held`,
    why: "there is no hold that a release could end",
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", target] }],
  });
}
