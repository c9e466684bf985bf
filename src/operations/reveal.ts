/** Reveal: masked columns of a plan shown to one person, who signs the reason first. The ledger keeps that, never a value. */
import { NAMESPACES } from "../approval/requirement.js";
import { makeStatement, statementBytes } from "../approval/statement.js";
import { RefusedError, UsageError } from "../base/errors.js";
import { nearest } from "../base/suggest.js";
import type { MaskedColumn } from "../config/config.js";
import { callerOf } from "./judging/judge-plan.js";
import { onOneLine } from "./reject.js";
import type { Shown } from "./show.js";
import type { Toolbox } from "./toolbox.js";

/** It is recorded at once; the statement's end only gives it the form that all have. */
const REVEAL_SECONDS = 3600;

/** What somebody wants to see, and why. */
export interface RevealRequest {
  /** `table.column` each. */
  readonly columns: readonly string[];
  readonly reason: string;
  readonly key: string | undefined;
}

/** What was recorded, and so may be shown. */
export interface Revealed {
  readonly columns: readonly MaskedColumn[];
  readonly by: string;
  readonly reason: string;
  /** The entry of the ledger. */
  readonly sequence: number;
}

/**
 * Refuses a reveal to whoever says that they are no person. A typed word would not stop a program either; what does is a
 * key that it cannot reach.
 * @throws UsageError ERR_INPUT_NEEDED
 */
export function refuseRevealByProgram(tools: Toolbox): void {
  const caller = callerOf(tools.claims());
  if (caller !== "person") throw onlyAtTerminal(caller === "ci" ? "this is CI" : "this is an agent");
}

/** The refusal of every place that is no person's terminal. */
export function onlyAtTerminal(found: string): UsageError {
  return new UsageError({
    code: "ERR_INPUT_NEEDED",
    message: "masked values are shown to a person at a terminal only",
    why: `--reveal reads and writes the terminal alone; ${found}`,
    next: [{ actor: "anyone", text: "Run it at a terminal: this is for a person." }],
    details: { flag: null },
  });
}

/**
 * Records that these columns are revealed, signed by the person's key. Until it has returned nothing may be shown.
 * @throws UsageError for a blank reason, a column that is not masked or that the plan does not have.
 * @throws RefusedError ERR_KEY_UNKNOWN where nobody knows whose key it is.
 * @throws whatever the ledger throws when it cannot be written.
 */
export async function recordReveal(tools: Toolbox, shown: Shown, request: RevealRequest): Promise<Revealed> {
  const reason = onOneLine(request.reason);
  if (reason === "") {
    throw new UsageError({
      code: "ERR_USAGE",
      message: "showing masked values needs a reason",
      why: "--reason is blank; it is recorded with your name",
    });
  }
  const columns = columnsToReveal(tools, shown, request.columns);
  const key = await tools.findKey(request.key, NAMESPACES.approval);
  if (key.person === null) {
    throw new RefusedError({
      code: "ERR_KEY_UNKNOWN",
      message: "this key is not one that the people file knows",
      why: `key ${key.fingerprint}; masked values are shown to somebody with a name`,
      next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
    });
  }
  const names = columns.map((c) => `${c.table}.${c.column}`);
  const target = shown.statement.target;
  // Signed, because a public key lies open: nobody looks in another one's name.
  const bytes = statementBytes(
    makeStatement({
      act: "reveal",
      target: target.name,
      identity: target.identity,
      subject: shown.id,
      from: shown.digest,
      by: key.person,
      now: tools.clock.now(),
      ttlSeconds: REVEAL_SECONDS,
      nonce: tools.random(16),
      reason,
      changes: names.map((n) => `~ ${n} is shown`),
    }),
  );
  const signature = await key.sign(bytes);
  const { entry } = (await tools.ledger()).append({
    kind: "revealed",
    target: target.name,
    plan: shown.id,
    facts: {
      digest: shown.digest,
      by: key.person,
      columns: names,
      reason,
      statement: Buffer.from(bytes).toString("base64url"),
      signature: Buffer.from(signature).toString("base64url"),
    },
  });
  return { columns, by: key.person, reason, sequence: entry.sequence };
}

function columnsToReveal(tools: Toolbox, shown: Shown, names: readonly string[]): readonly MaskedColumn[] {
  const masked = tools.project.config.targets[shown.statement.target.name]?.mask ?? [];
  return [...new Set(names)].map((name) => {
    const column = masked.find((m) => `${m.table}.${m.column}` === name);
    if (column === undefined) throw notMasked(shown, name, masked);
    if (!hasColumn(shown, name)) {
      throw new UsageError({
        code: "ERR_USAGE",
        message: `${shown.id} has no column ${name}`,
        why: `it changes ${shown.shapes.map((s) => s.name).join(", ") || "no rows"}`,
        next: [{ actor: "anyone", argv: ["holdpoint", "show", shown.id] }],
      });
    }
    return column;
  });
}

function hasColumn(shown: Shown, name: string): boolean {
  return shown.shapes.some((s) => s.columns.some((c) => `${s.name}.${c.name}` === name));
}

function notMasked(shown: Shown, name: string, masked: readonly MaskedColumn[]): UsageError {
  const next = { actor: "anyone" as const, argv: ["holdpoint", "show", shown.id, "--rows"] };
  if (hasColumn(shown, name)) {
    const why = "its values stand among the plan's rows, with no reason asked";
    return new UsageError({ code: "ERR_USAGE", message: `${name} is not masked`, why, next: [next] });
  }
  const known = masked.map((m) => `${m.table}.${m.column}`);
  const guess = nearest(name, known);
  const has =
    known.length === 0
      ? `${shown.statement.target.name} masks no columns`
      : `${shown.statement.target.name} masks ${known.join(", ")}`;
  return new UsageError({
    code: "ERR_USAGE",
    message: `there is no masked column ${name}`,
    why: guess === undefined ? has : `${has}; did you mean ${guess}?`,
    next: [next],
  });
}
