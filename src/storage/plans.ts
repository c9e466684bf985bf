/** The store's plans: one file each, named after the plan's id, which is the digest of its statement. */
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { digestOf } from "../base/digest.js";
import { IntegrityError, UsageError } from "../base/errors.js";
import { idFromDigest, isId, isIdOrPrefix } from "../base/ids.js";
import { sameBytes } from "../changeset/value.js";
import { type PlanFile, type PlanParts, readPlanFile, writePlanFile } from "./plan-file.js";
import { syncFolder } from "./files.js";
import { plainFileAt, storing, storingAsync } from "./sqlite.js";
import type { Store } from "./store.js";

const SUFFIX = ".hpplan";

/** The plans of a store. */
export interface Plans {
  /**
   * Writes the plan into the store, and a copy to `out` where given, which must be a free name.
   * @returns the copy's path, else the stored file's.
   */
  readonly save: (plan: PlanParts & { readonly id: string; readonly out?: string }) => Promise<string>;
  /**
   * Puts the proof into a stored plan that has none; one that has one is never given another.
   * @throws IntegrityError ERR_PLAN_ALTERED where the stored plan is another, or has a proof.
   */
  readonly prove: (plan: PlanParts & { readonly id: string }) => Promise<string>;
  /**
   * The stored file of an id or of a unique prefix of one.
   * @throws UsageError ERR_PLAN_UNKNOWN, ERR_PLAN_AMBIGUOUS.
   */
  readonly find: (idOrPrefix: string) => string;
  /** A plan by id, by unique prefix, or, for anything that is no id, by file. */
  readonly read: (ref: string) => Promise<PlanFile>;
  /** All ids, in code-unit order. */
  readonly ids: () => Promise<readonly string[]>;
  /** Destroys a stored plan and its rows; nothing when there is none. */
  readonly forget: (id: string) => void;
}

/** The plans in an open store. */
export function openPlans(store: Pick<Store, "plans">): Plans {
  const folder = store.plans;
  const ids = (): readonly string[] => storing("read", folder, () => stored(folder));
  const find = (ref: string): string => join(folder, findId(ids(), ref) + SUFFIX);
  return {
    save: (plan) => storingAsync("write a plan to", folder, () => save(folder, plan)),
    prove: (plan) => storingAsync("write a plan to", folder, async () => prove(find(plan.id), plan)),
    find,
    read: (ref) =>
      storingAsync("read", ref, () =>
        isIdOrPrefix("pl", ref) ? readStored(find(ref)) : readPlanFile(ref, { followLinks: true }),
      ),
    ids: async () => ids(),
    forget: (id) =>
      storing("remove a plan from", folder, () => {
        if (isId("pl", id)) rmSync(join(folder, id + SUFFIX), { force: true });
        syncFolder(folder);
      }),
  };
}

async function save(
  folder: string,
  plan: PlanParts & { readonly id: string; readonly out?: string },
): Promise<string> {
  requireOwnId(plan.id, plan.statement, "the plan to be stored");
  const path = join(folder, plan.id + SUFFIX);
  if (plainFileAt(path)) await requireSame(path, plan);
  else await writePlanFile(path, plan);
  if (plan.out === undefined) return path;
  await writePlanFile(plan.out, plan);
  return plan.out;
}

async function prove(path: string, plan: PlanParts & { readonly id: string }): Promise<string> {
  requireOwnId(plan.id, plan.statement, "the plan to be proven");
  const there = await readStored(path);
  if (there.signature !== null)
    throw notItself(path, "expected a plan without a proof, found one that has it");
  await writePlanFile(path, plan, "replace");
  return path;
}

/** The same plan stored twice is one file; another one under its name is never overwritten. */
async function requireSame(path: string, plan: PlanParts): Promise<void> {
  const there = await readStored(path);
  if (sameBytes(there.signature ?? new Uint8Array(), plan.signature ?? new Uint8Array())) return;
  throw notItself(path, "expected the signature that is stored, found another one over the same statement");
}

/** A file in the store is what its name says, and is no link to somewhere else. */
async function readStored(path: string): Promise<PlanFile> {
  const file = await readPlanFile(path, { followLinks: false });
  requireOwnId(path.slice(-(SUFFIX.length + "pl_".length + 16), -SUFFIX.length), file.statement, path);
  return file;
}

function requireOwnId(id: string, statement: Uint8Array, where: string): void {
  const own = idFromDigest("pl", digestOf(statement));
  if (own !== id) throw notItself(where, `expected the plan ${id}, its statement makes ${own}`);
}

function findId(ids: readonly string[], ref: string): string {
  const found = isIdOrPrefix("pl", ref) ? ids.filter((id) => id.startsWith(ref)) : [];
  const [only, ...others] = found;
  if (only === undefined) throw unknown(ref, ids.length);
  if (others.length > 0) throw ambiguous(ref, found);
  return only;
}

function stored(folder: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(SUFFIX) && isId("pl", name.slice(0, -SUFFIX.length)))
    .map((name) => name.slice(0, -SUFFIX.length))
    .sort();
}

function notItself(where: string, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_PLAN_ALTERED",
    message: `${where} is not the plan it is named after`,
    why,
    next: [
      {
        actor: "anyone",
        text: "Do not retry. Keep the file, make the plan again, and find out who changed it.",
      },
    ],
  });
}

function unknown(ref: string, known: number): UsageError {
  return new UsageError({
    code: "ERR_PLAN_UNKNOWN",
    message: `no plan ${ref} in this store`,
    why: `none of its ${known} plans has that id or begins with it`,
    next: [{ actor: "anyone", argv: ["holdpoint", "status"] }],
  });
}

function ambiguous(ref: string, found: readonly string[]): UsageError {
  return new UsageError({
    code: "ERR_PLAN_AMBIGUOUS",
    message: `${ref} is the beginning of ${found.length} plans`,
    why: `${found.slice(0, 5).join(", ")}${found.length > 5 ? " …" : ""}`,
    next: found.slice(0, 5).map((id) => ({ actor: "anyone", argv: ["holdpoint", "show", id] })),
    details: { plans: found },
  });
}
