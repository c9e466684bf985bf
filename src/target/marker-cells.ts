/**
 * Cells of the marker's tables, read the same way whatever engine holds them. The tables lie where others can write,
 * so nothing in them is believed before it has its form.
 */
import { parseCanonical } from "../base/canonical.js";
import { type Digest, isDigest } from "../base/digest.js";
import { RefusedError } from "../base/errors.js";
import { type Environment, ENVIRONMENTS } from "../environment/evidence.js";
import type { Note } from "./marker.js";

const KINDS = [
  "rejected",
  "revoked",
  "held",
  "released",
  "exempted",
  "debt",
  "reviewed",
  "undone",
] as const satisfies readonly Note["kind"][];

/** What kind of note it is. */
export function kindOf(cell: unknown): Note["kind"] {
  const kind = KINDS.find((k) => k === cell);
  if (kind === undefined) throw unreadable(`a note's kind is ${String(cell)}`);
  return kind;
}

/** A named environment. */
export function environmentOf(cell: unknown): Environment {
  const environment = ENVIRONMENTS.find((e) => e === cell);
  if (environment === undefined) throw unreadable(`its environment is ${String(cell)}`);
  return environment;
}

/** What was recorded of the place: a canonical object of texts. */
export function placeOf(cell: unknown): Readonly<Record<string, string>> {
  const parsed = typeof cell === "string" ? parseCanonical(cell) : undefined;
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    throw unreadable("its place is no object");
  return Object.fromEntries(
    Object.entries(parsed).map(([name, value]) => {
      if (typeof value !== "string") throw unreadable(`${name} in its place is no text`);
      return [name, value];
    }),
  );
}

/** The nonces of a spent token: a canonical list. */
export function noncesOf(cell: unknown): readonly string[] {
  const parsed = typeof cell === "string" ? parseCanonical(cell) : undefined;
  if (!Array.isArray(parsed)) throw unreadable("the nonces of a spent token are no list");
  return parsed.map(String);
}

/** A digest; `what` says of what. */
export function digestOfCell(cell: unknown, what: string): Digest {
  if (typeof cell === "string" && isDigest(cell)) return cell;
  throw unreadable(`${what} is no digest`);
}

/** A text; `what` names it. */
export function textOf(cell: unknown, what: string): string {
  if (typeof cell === "string") return cell;
  throw unreadable(`${what} is no text`);
}

/** A text, or nothing; `what` names it. */
export function textOrNull(cell: unknown, what: string): string | null {
  return cell === null || cell === undefined ? null : textOf(cell, what);
}

/** The refusal (33): a marker that cannot be read is never no marker. */
export function unreadable(why: string): RefusedError {
  return new RefusedError({
    code: "ERR_ENV_CONTRADICTED",
    message: "the target's marker cannot be read",
    why,
    next: [{ actor: "dba", text: "find out who changed the tables holdpoint_*, then pin the target again" }],
  });
}
