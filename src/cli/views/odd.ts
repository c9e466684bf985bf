/** Odd rows in words, with masked columns masked. */
import type { TableShape } from "../../changeset/change.js";
import type { Odd, OddReason, OddRowRule } from "../../changeset/odd.js";
import type { Value } from "../../changeset/value.js";
import type { CardFacts } from "../../render/card.js";
import { count } from "../../render/numbers.js";
import type { RowView } from "../../render/rows.js";
import { showFull } from "../../render/value.js";
import { rowViews, type Showing } from "./rows.js";

/** At most so many kinds stand on the card; the rows themselves are listed below it whatever their kind. */
const KINDS_SHOWN = 5;

/** The card's line of them. */
export function oddFacts(odd: Odd, how: Showing): CardFacts["odd"] {
  return {
    rules: odd.rules,
    rows: odd.looked,
    findings: odd.groups
      .slice(0, KINDS_SHOWN)
      .map((g) => ({ rule: g.rule, rows: g.rows, words: groupWords(g.table, g.rule, g.example, how) })),
  };
}

/** The rows in full, each with why it is odd. */
export function oddViews(odd: Odd, shapes: readonly TableShape[], how: Showing): RowView[] {
  return odd.rows.flatMap(({ change, reason }) =>
    rowViews([change], shapes, how, [reason.column]).map((view) => ({
      ...view,
      note: rowWords(change.table, reason, how),
    })),
  );
}

function groupWords(table: string, rule: OddRowRule, example: OddReason, how: Showing): string {
  const column = `${table}.${example.column}`;
  switch (rule) {
    case "protected-value":
      return `with a protected ${column}`;
    case "second-tenant":
      return `of another ${column}`;
    case "extreme-value":
      return `extreme in ${column}`;
    case "ratio":
      return `of ${column} ten times as large or a tenth, or more`;
    case "rare-transition":
      return `with a rare change of ${column}${leftBehind(table, example, how)}`;
    case "age-gap":
      return `apart from the others in ${column}`;
  }
}

function leftBehind(table: string, r: OddReason, how: Showing): string {
  return r.rule === "rare-transition" ? ` (was ${shown(table, r.column, r.from, how)})` : "";
}

function rowWords(table: string, r: OddReason, how: Showing): string {
  switch (r.rule) {
    case "protected-value":
      return `protected: ${r.column} ${shown(table, r.column, r.value, how)}`;
    case "second-tenant":
      return `another tenant: ${r.column} ${shown(table, r.column, r.value, how)}`;
    case "extreme-value":
      return `${r.column} is ${count(r.times)}x the rest`;
    case "ratio":
      return `${r.column} becomes ${timesWords(r.times)}`;
    case "rare-transition":
      return `rare change, ${count(r.rows)} of ${count(r.of)}`;
    case "age-gap":
      return `${r.column} lies apart from all others`;
  }
}

function timesWords(times: number): string {
  return times >= 1
    ? `${count(Math.round(times))} times as large`
    : `${count(Math.round(1 / times))} times smaller`;
}

function shown(table: string, column: string, v: Value, how: Showing): string {
  return showFull(how.isMasked(table, column) ? how.mask(v) : v);
}
