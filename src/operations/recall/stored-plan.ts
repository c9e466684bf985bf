/** From a plan's file to a plan that can be believed as far as its bytes go: every digest and the signature checked. */
import {
  parsePlanStatement,
  planDigest,
  planId,
  planStatementBytes,
} from "../../approval/plan-statement-codec.js";
import type { PlanStatement } from "../../approval/plan-statement.js";
import { planAudience } from "../../approval/ci-identity.js";
import { misformedCiToken } from "../../approval/ci-token.js";
import { NAMESPACES, type Person } from "../../approval/requirement.js";
import { verifySshsig } from "../../approval/sshsig.js";
import { personOfSignature } from "../../approval/people.js";
import { shortDigest } from "../../base/digest.js";
import { HoldpointError, IntegrityError, RefusedError } from "../../base/errors.js";
import type { ChangeSink, TableCounts, TableShape } from "../../changeset/change.js";
import { digestOfSource, type Measured } from "../../changeset/encode.js";
import { countRows } from "../../changeset/source.js";
import type { LoadedPlan, PlanFile, Toolbox, WorkingChanges } from "../toolbox.js";

/**
 * Reads, verifies and loads a plan into its working form; `also` is told every change on the way.
 * @throws IntegrityError ERR_PLAN_ALTERED (35) when any byte is not what was signed.
 */
export async function loadPlan(tools: Toolbox, ref: string, also?: ChangeSink): Promise<LoadedPlan> {
  const file = await tools.plans.read(ref);
  const writer = await tools.workingChanges();
  try {
    const checked = await checkPlan(file, also === undefined ? writer : both(writer, also));
    requireStoredAs(ref, checked.id, file);
    const changes = writer.finish();
    return { ...checked, path: file.path, signature: file.signature, changes, close: changes.close };
  } catch (e) {
    writer.abort();
    throw e;
  }
}

/**
 * {@link loadPlan} for whoever needs no row again: every byte is checked and told to `also`, and nothing is kept. Of its
 * changes there are the tables; asking for a row is a fault of ours.
 */
export async function readPlan(tools: Toolbox, ref: string, also: ChangeSink): Promise<LoadedPlan> {
  const file = await tools.plans.read(ref);
  const tables: TableShape[] = [];
  const shapes: ChangeSink = { table: (shape) => void tables.push(shape), add: () => undefined };
  const checked = await checkPlan(file, both(shapes, also));
  requireStoredAs(ref, checked.id, file);
  return {
    ...checked,
    path: file.path,
    signature: file.signature,
    changes: unkept(tables, file.path),
    close: () => undefined,
  };
}

function unkept(tables: readonly TableShape[], path: string): WorkingChanges {
  const asked = (): never => {
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: `rows of ${path} were asked for`,
      why: "it was read without keeping them",
    });
  };
  return { path, tables, changes: asked, get: asked, query: asked, keysWhere: asked, close: () => undefined };
}

function requireStoredAs(ref: string, id: string, file: PlanFile): void {
  if (ref.startsWith("pl_") && !id.startsWith(ref))
    throw planAltered(file.path, `it was stored as ${ref} and its bytes make ${id}`);
}

/**
 * The plan that this process sealed a moment ago, with the changes that it sealed and still holds: their rows are not decoded
 * from the plan's file once more. That is as safe as decoding them, because nothing is left to believe:
 *
 * - every byte of the file is read again, its statement and signature are checked as ever, and the stream in it has the
 *   digest that the statement names;
 * - `changes` have that digest, rows and counts too, as this process measured when it read all of them; it measures them
 *   now where it has not. One digest, one ChangeSet: decoding the file could only give the same rows;
 * - between then and the writing they lie where a decoded plan would lie, in a working file of this process in the store.
 *
 * For a plan of anybody else, another process of ours included, there is only {@link loadPlan}.
 * The caller closes `changes`.
 * @throws IntegrityError ERR_PLAN_ALTERED (35) when any byte is not what was signed, or the changes are not the plan's.
 */
export async function loadSealed(tools: Toolbox, ref: string, changes: WorkingChanges): Promise<LoadedPlan> {
  const file = await tools.plans.read(ref);
  const checked = checkStatement(file);
  if (checked.id !== ref)
    throw planAltered(file.path, `it was stored as ${ref} and its bytes make ${checked.id}`);
  const { digest, rows, tables } = measure(changes);
  requireRows(checked.statement, { digest: await file.streamDigest(), rows }, file.path);
  requireRows(checked.statement, { digest, rows }, file.path);
  requireCounts(checked.statement, tables, file.path);
  return { ...checked, path: file.path, signature: file.signature, changes, close: () => undefined };
}

/** A plan whose bytes hold, as {@link checkPlan} found it. */
export type CheckedPlan = Pick<LoadedPlan, "id" | "digest" | "statement">;

/**
 * Checks every byte of a plan's file: statement, signature, every row against the digests and counts that were signed.
 * The rows go into `sink`, which is to be thrown away where this throws. Asks nothing but the file.
 * @throws IntegrityError ERR_PLAN_ALTERED (35).
 */
export async function checkPlan(file: PlanFile, sink: ChangeSink): Promise<CheckedPlan> {
  const checked = checkStatement(file);
  await checkChanges(sink, file.loadInto, checked.statement, file.path);
  return checked;
}

/** What a plan says of itself, by its own digest and its requester's signature. */
function checkStatement(file: PlanFile): CheckedPlan {
  const digest = planDigest(file.statement);
  const statement = parsePlanStatement(file.statement);
  const id = planId(digest);
  requireSignature(statement, file.statement, file.signature, id);
  return { id, digest, statement };
}

/** An id or the beginning of one as it is; of a plan file, the id that its bytes make. */
export async function planOrRunId(tools: Toolbox, ref: string): Promise<string> {
  if (/^(pl|rn)_[0-9a-z]*$/.test(ref)) return ref;
  return planId(planDigest((await tools.plans.read(ref)).statement));
}

async function checkChanges(
  sink: ChangeSink,
  loadInto: PlanFile["loadInto"],
  statement: PlanStatement,
  path: string,
): Promise<void> {
  const counted = counting(sink);
  requireRows(statement, await loadInto(counted.sink), path);
  requireCounts(statement, counted.counts(), path);
}

function requireRows(
  { changeset: signed }: PlanStatement,
  { rows, digest }: Pick<Measured, "rows" | "digest">,
  path: string,
): void {
  if (digest !== signed.digest)
    throw planAltered(path, `rows: signed ${shortDigest(signed.digest)}, found ${shortDigest(digest)}`);
  if (rows !== signed.rows) throw planAltered(path, `rows: signed ${signed.rows}, found ${rows}`);
}

/** What goes into one sink goes into another one too. */
export function both(first: ChangeSink, second: ChangeSink): ChangeSink {
  return {
    table: (shape) => {
      first.table(shape);
      second.table(shape);
    },
    add: (change) => {
      first.add(change);
      second.add(change);
    },
  };
}

/** Counts what passes into a sink: a pass of its own would cost a quarter of the loading. */
function counting(sink: ChangeSink): {
  readonly sink: ChangeSink;
  readonly counts: () => readonly TableCounts[];
} {
  const counters = new Map<string, ReturnType<typeof countRows>>();
  return {
    sink: {
      table: (shape) => {
        if (!counters.has(shape.name)) counters.set(shape.name, countRows(shape.name));
        sink.table(shape);
      },
      add: (change) => {
        counters.get(change.table)?.add(change);
        sink.add(change);
      },
    },
    counts: () =>
      [...counters.values()].map((c) => c.counts()).filter((t) => t.insert + t.update + t.delete > 0),
  };
}

/** What the statement says per table must be what its rows say: the card is drawn from the one, apply writes the other. */
function requireCounts(statement: PlanStatement, counted: readonly TableCounts[], path: string): void {
  const claimed = statement.changeset.tables;
  const same =
    counted.length === claimed.length &&
    counted.every((c) => {
      const t = claimed.find((x) => x.name === c.name);
      return t !== undefined && t.insert === c.insert && t.update === c.update && t.delete === c.delete;
    });
  if (!same) throw planAltered(path, "its counts per table are not those of its rows");
}

function requireSignature(
  statement: PlanStatement,
  bytes: Uint8Array,
  signature: Uint8Array | null,
  id: string,
): void {
  const { requester } = statement;
  if (signature === null) {
    if (requester.how === "none") return;
    // Not proven yet: whoever reviews or applies it is told so by `requireProvenPipeline`, with the way to prove it.
    if (requester.how === "ci-token") return;
    throw planAltered(id, "it says it was signed, and carries no signature");
  }
  if (requester.how === "ci-token") {
    // Whose token it is takes the pinned keys: `requireProvenPipeline`, like `requireKnownRequester` for a person.
    const wrong = misformedCiToken(signature, planAudience(planDigest(bytes)));
    if (wrong !== null) throw planAltered(id, `the token of its pipeline does not hold: ${wrong}`);
    return;
  }
  const check = verifySshsig({ bytes, signature, namespace: NAMESPACES.plan });
  if (!check.ok) throw planAltered(id, `the requester's signature does not hold: ${check.why}`);
  if (check.key.fingerprint !== requester.key) {
    throw planAltered(
      id,
      `it names key ${requester.key ?? "none"} and is signed by ${check.key.fingerprint}`,
    );
  }
}

/**
 * Holds the plan's signature against the people of the pinned bundle; after the bundle itself was checked.
 * @throws RefusedError ERR_KEY_UNKNOWN (32) when the key is not the named requester's here.
 */
export function requireKnownRequester(plan: LoadedPlan, people: readonly Person[]): void {
  const { statement, signature, id } = plan;
  const { requester } = statement;
  if (signature === null || requester.how === "ci-token") return;
  const check = verifySshsig({ bytes: planStatementBytes(statement), signature, namespace: NAMESPACES.plan });
  const person = check.ok
    ? personOfSignature(people, check, NAMESPACES.plan, new Date(statement.created_at))
    : null;
  if (person === null || person.name !== requester.person) {
    throw new RefusedError({
      code: "ERR_KEY_UNKNOWN",
      message: `${id} was requested with a key that is not ${requester.person ?? "a known person"}'s here`,
      why: `key ${requester.key ?? "none"}; the people file here ${person === null ? "does not know it" : `says it is ${person.name}'s`}`,
      next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show"] }],
    });
  }
}

/** The refusal (35) of a plan whose bytes do not say what was made. */
export function planAltered(what: string, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_PLAN_ALTERED",
    message: `${what} is not the plan that was made`,
    why,
    next: [
      {
        actor: "anyone",
        text: "Do not retry. Keep the file, make the plan again, and find out who changed it.",
      },
    ],
  });
}

/** The digest of a plan's ChangeSet with each table's counts, for a statement; `also` is told every change on the way. */
export function measure(changes: WorkingChanges, also?: ChangeSink): Measured {
  return changes.packed?.(also) ?? digestOfSource(changes, also);
}
