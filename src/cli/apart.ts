/**
 * A stranger's plan is first read in a process of its own (`verify-plan.ts`), under Node's permission model: no
 * environment, no file but the program and the plan, no native code, bounds on time and memory. What makes a parser fail,
 * hang or swell does so there, where there is no key, agent or address to reach.
 */
import { realpathSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { decode, literal, object, string, tagged } from "../base/decode.js";
import { IntegrityError, UsageError } from "../base/errors.js";

/** What `machine/` gives for it. */
export interface Apart {
  readonly run: (
    script: URL,
    input: string,
    limits: {
      readonly maxMs: number;
      readonly maxOutputBytes: number;
      readonly flags: readonly string[];
    },
  ) => Promise<
    | { readonly kind: "done"; readonly output: string }
    | { readonly kind: "late" }
    | { readonly kind: "failed"; readonly message: string }
  >;
  readonly confinement: (readable: readonly string[], maxMegabytes: number) => readonly string[];
}

/** A second for each so many bytes of a plan, and half a minute for a slow start. */
const APART_BYTES_PER_SECOND = 1024 * 1024;
const APART_LEAST_MS = 30_000;
const APART_MEGABYTES = 512;

/**
 * Checks every byte of the plan in the file `given`, which `ref` named.
 * @throws IntegrityError ERR_PLAN_ALTERED, ERR_PLAN_UNCHECKED (35); UsageError ERR_PLAN_UNKNOWN.
 */
export async function verifyApart(apart: Apart, ref: string, given: string): Promise<void> {
  const size = statSync(given, { throwIfNoEntry: false })?.size;
  // A file that is not there is told as everywhere else, by what reads it next.
  if (size === undefined) return;
  const path = realpathSync(given);
  const script = new URL("./verify-plan.js", import.meta.url);
  const dist = resolve(dirname(fileURLToPath(script)), "..");
  const outcome = await apart.run(script, path, {
    maxMs: APART_LEAST_MS + Math.ceil(size / APART_BYTES_PER_SECOND) * 1000,
    maxOutputBytes: 64 * 1024,
    flags: apart.confinement(
      [path, `${realpathSync(dist)}/*`, resolve(dist, "..", "package.json")],
      APART_MEGABYTES,
    ),
  });
  if (outcome.kind === "late") throw unchecked(ref, "it took longer than any plan of its size does");
  if (outcome.kind === "failed") throw unchecked(ref, outcome.message.split("\n", 1)[0] ?? "");
  const said = verdictApart(outcome.output);
  if (said === null) throw unchecked(ref, "the answer cannot be read");
  if (said.kind === "holds") return;
  if (said.code === "ERR_PLAN_UNKNOWN")
    throw new UsageError({
      code: "ERR_PLAN_UNKNOWN",
      message: said.message,
      why: said.why,
      next: [{ actor: "anyone", argv: ["holdpoint", "status"] }],
    });
  throw new IntegrityError({
    code: "ERR_PLAN_ALTERED",
    message: said.message,
    why: said.why,
    next: [
      {
        actor: "anyone",
        text: "Do not retry. Keep the file, make the plan again, and find out who changed it.",
      },
    ],
  });
}

const apartDecoder = tagged("kind", {
  holds: object({ kind: literal("holds"), id: string }),
  refused: object({ kind: literal("refused"), code: string, message: string, why: string }),
});

type Said =
  | { readonly kind: "holds" }
  | { readonly kind: "refused"; readonly code: string; readonly message: string; readonly why: string };

function verdictApart(output: string): Said | null {
  try {
    const decoded = decode(apartDecoder, JSON.parse(output));
    return decoded.ok ? decoded.value : null;
  } catch {
    return null;
  }
}

function unchecked(ref: string, why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_PLAN_UNCHECKED",
    message: `${ref} could not be checked`,
    why,
    state: "Nothing was signed.",
    next: [{ actor: "requester", text: "Make the plan again." }],
  });
}
