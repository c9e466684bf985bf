/** Facts of an entry by name and type; what is missing or of another type is null. */
import type { Entry } from "./entry.js";

/** A text fact. */
export function textFact(entry: Pick<Entry, "facts">, name: string): string | null {
  const v = entry.facts[name];
  return typeof v === "string" ? v : null;
}

/** A whole-number fact. */
export function numberFact(entry: Pick<Entry, "facts">, name: string): number | null {
  const v = entry.facts[name];
  return typeof v === "number" ? v : null;
}

/** A list of texts; empty when there is none. */
export function textsFact(entry: Pick<Entry, "facts">, name: string): readonly string[] {
  const v = entry.facts[name];
  return Array.isArray(v) ? v.filter((x): x is string => typeof x === "string") : [];
}
