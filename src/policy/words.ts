/** Numbers and requirements in the words that results use. The same everywhere, no locale. */
import type { ApprovalsAsked } from "./schema.js";

/** `3725` as `3,725`. */
export function count(n: bigint): string {
  return String(n).replaceAll(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** `1 row`, `3,725 rows`. */
export function rowsInWords(n: bigint): string {
  return `${count(n)} ${n === 1n ? "row" : "rows"}`;
}

/** `part` of `whole` as `63.14 %`: rounded to nearest, except that it says 0 and 100 only when it is exactly so. */
export function percent(part: bigint, whole: bigint): string {
  if (whole <= 0n) return "0 %";
  const rounded = (part * 10_000n + whole / 2n) / whole;
  const tooLow = rounded === 0n && part > 0n;
  const tooHigh = rounded === 10_000n && part < whole;
  const hundredths = tooLow ? 1n : tooHigh ? 9_999n : rounded;
  const decimals = String(hundredths % 100n)
    .padStart(2, "0")
    .replace(/0+$/, "");
  return `${tooLow ? "under " : tooHigh ? "over " : ""}${count(hundredths / 100n)}${decimals === "" ? "" : `.${decimals}`} %`;
}

/** `1 person from dba or leads`, `2 people`. */
export function peopleInWords(asked: ApprovalsAsked): string {
  const people = asked.people === 1 ? "1 person" : `${asked.people} people`;
  return asked.groups.length === 0 ? people : `${people} from ${asked.groups.join(" or ")}`;
}

/** `3 in words`: at most `most` parts, then how many more. */
export function listInWords(parts: readonly string[], most = 3): string {
  const shown = parts.slice(0, most).join("; ");
  return parts.length > most ? `${shown}; and ${parts.length - most} more` : shown;
}
