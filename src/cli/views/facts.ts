/** Facts of an effect in words, for the card: masked columns masked, numbers grouped. */
import type { Direction } from "../../changeset/direction.js";
import type { Value } from "../../changeset/value.js";
import type { EffectFacts } from "../../operations/judging/effect-facts.js";
import { plural } from "../../render/numbers.js";
import { showFull } from "../../render/value.js";
import type { Showing } from "./rows.js";

/** `12 rows of orders.status, as cancelled → pending (declared pending → cancelled)`. */
export function againstWords(f: EffectFacts, how: Showing): readonly string[] {
  return f.against.map((a) => {
    const shown = (v: Value): string => showFull(how.isMasked(a.table, a.column) ? how.mask(v) : v);
    const rows = `${plural(a.rows, "row")} of ${a.table}.${a.column}`;
    return `${rows}, as ${shown(a.before)} → ${shown(a.after)} (declared ${declaredWords(a.declared)})`;
  });
}

function declaredWords(d: Direction): string {
  if (d.way !== null) return d.way;
  const ends = (values: Direction["from"]): string =>
    values === null ? "anything" : values.map((v) => v ?? "NULL").join(", ");
  return `${ends(d.from)} → ${ends(d.to)}`;
}

/** `12 rows of mail_queue go out, by trigger`. */
export function leavingWords(f: EffectFacts): readonly string[] {
  return f.leaving.map((l) => {
    const by = l.origin === "trigger" || l.origin === "cascade" ? `, by ${l.origin}` : "";
    return `${plural(l.rows, "row")} of ${l.table} ${l.rows === 1 ? "goes" : "go"} out${by}`;
  });
}

/** `orders.total 118,412.75 EUR`, or `84.00 → 8,400.00 EUR` where the sum changes. */
export function sumWords(f: EffectFacts): readonly string[] {
  return f.sums.map((s) => {
    const [before, after] = [grouped(s.before), grouped(s.after)];
    const total = before === after ? after : `${before} → ${after}`;
    const unread =
      s.unread === 0
        ? ""
        : ` (without ${plural(s.unread, "row")} that ${s.unread === 1 ? "is" : "are"} no number)`;
    return `${s.table}.${s.column} ${total} ${s.unit}${unread}`;
  });
}

/** `118412.75` as `118,412.75`; text, because a sum may have more digits than a number keeps. */
function grouped(decimal: string): string {
  const [whole = "", fraction] = decimal.split(".");
  const sign = whole.startsWith("-") ? "-" : "";
  const digits = whole.slice(sign.length).replaceAll(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? `${sign}${digits}` : `${sign}${digits}.${fraction}`;
}
