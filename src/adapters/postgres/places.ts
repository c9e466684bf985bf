/** Places of rows (`ctid`) as numbers, and asking for them. */
import type { Session } from "./driver.js";
import type { Storage } from "./schema.js";
import type { Cell } from "./values.js";

/** Places asked for in one query. */
export const PLACES = 20_000;

/** A place as a number: block × 2¹⁶ + line, exact up to 2⁴⁸. */
export function placeNumber(place: Cell | undefined): number {
  const text = place ?? "";
  const comma = text.indexOf(",");
  return Number(text.slice(1, comma)) * 65_536 + Number(text.slice(comma + 1, -1));
}

/** The number as the engine writes a place. */
export function placeText(place: number): string {
  return `(${Math.floor(place / 65_536)},${place % 65_536})`;
}

/** Of these places those at which the session sees a row: their `ctid`, or what `xmax` stands there. */
export async function* placesSeen(
  session: Session,
  storage: Storage,
  places: readonly number[],
  column: "ctid" | "xmax",
): AsyncGenerator<string, undefined> {
  for (let at = 0; at < places.length; at += PLACES) {
    const asked = places.slice(at, at + PLACES).map(placeText);
    const sql = `SELECT ${column} FROM ${storage.from} WHERE ctid = ANY ($1::tid[])`;
    for (const [cell] of await session.rows(sql, asked)) yield cell ?? "";
  }
}
