/**
 * Applies a plan once, in a process of its own, with one fault: killed before a step, or one statement or file
 * operation that fails. The faults are put around the real toolbox and the real driver from outside; the product
 * knows nothing of them.
 *
 * Arguments: the project's folder, the plan, and a {@link Fault} as JSON. Prints one {@link FaultReport}.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import Database from "better-sqlite3";
import { HoldpointError, messageOf } from "../../src/base/errors.js";
import { wire } from "../../src/cli/wiring.js";
import { applyPlan } from "../../src/operations/apply.js";
import type { Toolbox } from "../../src/operations/toolbox.js";

/** What goes wrong, and at which of the things that are counted (from 1; 0 for nothing at all). */
export interface Fault {
  readonly kind:
    | "none"
    /** SIGKILL before the n-th step that a run distinguishes. */
    | "kill-step"
    /** SIGKILL before the n-th SQL statement: an instant somewhere. */
    | "kill-sql"
    /** The n-th SQL statement fails and does nothing. */
    | "fail-sql"
    /** The n-th SQL statement does its work, and its answer is lost. */
    | "lose-sql"
    /** The n-th file operation that writes fails as on a full disk. */
    | "disk-full";
  readonly at: number;
}

/** How it ended. */
export interface FaultReport {
  readonly counted: { readonly steps: number; readonly sql: number; readonly files: number };
  readonly ok: boolean;
  readonly code: string | null;
  readonly targetChanged: string;
  readonly message: string;
  /** The second application of the same plan, in the same process. */
  readonly again: string | null;
  readonly ledgerIsWhole: boolean;
}

const [dir = "", plan = "", json = "{}"] = process.argv.slice(2);
const fault = JSON.parse(json) as Fault;
const counted = { steps: 0, sql: 0, files: 0 };
let armed = false;

function die(): never {
  process.kill(process.pid, "SIGKILL");
  throw new Error("killed");
}

// ---- steps: everything that a run does to ledger, snapshots and target

function step(): void {
  if (!armed) return;
  counted.steps++;
  if (fault.kind === "kill-step" && counted.steps === fault.at) die();
}

/** Every function of the record counts as a step, and what it gives is wrapped where `inner` says how. */
function stepping<T extends object>(
  record: T,
  inner: (name: string, result: unknown) => unknown = (_, r) => r,
): T {
  return new Proxy(record, {
    get: (target, name, receiver): unknown => {
      const member: unknown = Reflect.get(target, name, target);
      void receiver;
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        step();
        const result: unknown = Reflect.apply(member, target, args);
        return result instanceof Promise
          ? result.then((r: unknown) => inner(String(name), r))
          : inner(String(name), result);
      };
    },
  });
}

function faulty(tools: Toolbox): Toolbox {
  return {
    ...tools,
    ledger: async () => stepping(await tools.ledger()),
    snapshots: stepping(tools.snapshots),
    openTarget: async (name) => {
      const { target, origins } = await tools.openTarget(name);
      const wrapped = stepping(target, (called, result) =>
        called === "openWriter" ? stepping(result as object) : result,
      );
      return { target: wrapped, origins };
    },
  };
}

// ---- statements: the driver's own functions

function statementDone(work: () => unknown): unknown {
  if (!armed) return work();
  counted.sql++;
  const isIt = counted.sql === fault.at;
  if (isIt && fault.kind === "kill-sql") die();
  if (isIt && fault.kind === "fail-sql") throw ioError();
  const result = work();
  if (isIt && fault.kind === "lose-sql") throw ioError();
  return result;
}

function ioError(): Error {
  return Object.assign(new Error("disk I/O error"), { code: "SQLITE_IOERR" });
}

function wrapMethods(
  prototype: object,
  names: readonly string[],
  around: (work: () => unknown) => unknown,
): void {
  for (const name of names) {
    const original: unknown = Reflect.get(prototype, name);
    if (typeof original !== "function") continue;
    Reflect.defineProperty(prototype, name, {
      configurable: true,
      writable: true,
      value(this: unknown, ...args: unknown[]) {
        return around(() => Reflect.apply(original, this, args));
      },
    });
  }
}

const probe = new Database(":memory:");
wrapMethods(Object.getPrototypeOf(probe) as object, ["exec", "pragma"], statementDone);
wrapMethods(
  Object.getPrototypeOf(probe.prepare("SELECT 1")) as object,
  ["run", "get", "all", "iterate"],
  statementDone,
);
probe.close();

// ---- files: operations that need room on the disk

wrapMethods(
  fs,
  ["openSync", "writeSync", "writeFileSync", "fsyncSync", "renameSync", "mkdirSync"],
  (work) => {
    if (!armed) return work();
    counted.files++;
    if (fault.kind === "disk-full" && counted.files === fault.at)
      throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
    return work();
  },
);
syncBuiltinESMExports();

// ---- the run

process.chdir(dir);
const wired = await wire({
  cwd: dir,
  env: { PATH: process.env["PATH"], HOME: dir },
  isInteractive: false,
  progress: { begin: () => () => {}, check: () => {}, wave: () => {} },
  narrate: () => {},
  interruption: { requested: () => null, insisted: () => false },
});
const request = { ref: plan, tokens: [], dryRun: false, confirm: async () => {} };
const report: { -readonly [K in keyof FaultReport]: FaultReport[K] } = {
  counted,
  ok: true,
  code: null,
  targetChanged: "yes",
  message: "",
  again: null,
  ledgerIsWhole: false,
};
armed = true;
try {
  await applyPlan(faulty(wired.tools), request);
} catch (e) {
  report.ok = false;
  report.code = e instanceof HoldpointError ? e.code : "ERR_INTERNAL";
  report.targetChanged = e instanceof HoldpointError ? e.targetChanged : "no";
  report.message = messageOf(e);
}
armed = false;
if (fault.kind === "none") {
  try {
    await applyPlan(wired.tools, request);
  } catch (e) {
    report.again = e instanceof HoldpointError ? e.code : messageOf(e);
  }
  report.ledgerIsWhole = (await wired.tools.ledger()).verify([]).ok;
}
wired.close();
process.stdout.write(`${JSON.stringify(report)}\n`);
