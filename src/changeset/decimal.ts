/** Exact decimal numbers: sums of money may not depend on the order of the rows, nor lose a cent. */
import type { Value } from "./value.js";

/** `units` divided by 10 to the power of `scale`; `scale` is never negative. */
export interface Decimal {
  readonly units: bigint;
  readonly scale: number;
}

/** Zero, without a fraction. */
export const ZERO: Decimal = { units: 0n, scale: 0 };

/** A number of more digits than this is no amount, and would only cost memory. */
const MOST_DIGITS = 400;

/** Whether a column of this declared type holds numbers, so that text in it is one. */
export function isNumberType(type: string): boolean {
  return /int|num|dec|real|doub|float|money/i.test(type);
}

/**
 * A value as a number, exactly: whole numbers, doubles by their shortest text, decimals that arrive as text. Null for
 * anything else, NULL, NaN and infinities included. `typed`: the column's type says that text in it is a number.
 */
export function decimalOf(v: Value, typed: boolean): Decimal | null {
  if (typeof v === "bigint") return { units: v, scale: 0 };
  if (typeof v === "number") return Number.isFinite(v) ? parse(String(v)) : null;
  return typeof v === "string" && typed ? parse(v) : null;
}

function parse(text: string): Decimal | null {
  if (text.length > MOST_DIGITS) return null;
  const [, sign, whole, fraction = "", power = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d{1,3}))?$/.exec(text) ?? [];
  if (whole === undefined) return null;
  const units = BigInt(`${sign ?? ""}${whole}${fraction}`);
  const scale = fraction.length - Number(power);
  return scale >= 0 ? { units, scale } : { units: units * 10n ** BigInt(-scale), scale: 0 };
}

/** Law: commutative and associative, whatever the scales. */
export function add(a: Decimal, b: Decimal): Decimal {
  const scale = Math.max(a.scale, b.scale);
  return { units: unitsAt(a, scale) + unitsAt(b, scale), scale };
}

/** Below zero, zero or above zero as `a` is less than, equal to or more than `b`. */
export function compare(a: Decimal, b: Decimal): number {
  const scale = Math.max(a.scale, b.scale);
  const [left, right] = [unitsAt(a, scale), unitsAt(b, scale)];
  return left < right ? -1 : left > right ? 1 : 0;
}

function unitsAt(d: Decimal, scale: number): bigint {
  return d.units * 10n ** BigInt(scale - d.scale);
}

/** Its digits: `118412.75`, `-0.5`, `0`. As many places as it was summed with. */
export function decimalText(d: Decimal): string {
  const digits = (d.units < 0n ? -d.units : d.units).toString().padStart(d.scale + 1, "0");
  const at = digits.length - d.scale;
  const fraction = d.scale === 0 ? "" : `.${digits.slice(at)}`;
  return `${d.units < 0n ? "-" : ""}${digits.slice(0, at)}${fraction}`;
}
