/**
 * Stop signs: built in, and on wherever production's rules apply. A policy switches one off by name and says
 * why; staging and development may switch them on. They look at the effect alone, never at what a plan says of itself.
 *
 * | name | fires when | effect |
 * | --- | --- | --- |
 * | `table-emptied` | a table that had rows has none left | deny |
 * | `over-half` | more than half of a table's rows are deleted | deny |
 * | `over-half-updated` | more than half of a table's rows are updated, in a table of at least 10 | one person, who gives a reason |
 * | `no-where` | an UPDATE or DELETE of the job has no WHERE | one person, who gives a reason |
 * | `column-levelled` | every row of a table ends with one value in a column | one person, who gives a reason |
 * | `protected-lost` | a row that holds a protected value is deleted, also as the child of a deleted row, or loses the value | deny |
 * | `outside-scope` | a table changes that the job did not declare | deny |
 *
 * An **undo** puts back rows that an approved plan wrote, each still as that plan left it: what would be denied
 * needs one person there, without a reason; else nobody could take back an insert into an empty table.
 */
import type { PolicyInput, PolicyTable } from "./decision.js";
import type { Facts } from "./facts.js";
import { type Check, follow, NOTHING_ASKED, passes } from "./finding.js";
import type { Consequence, StopSignName } from "./schema.js";
import { listInWords, percent, rowsInWords } from "./words.js";

/** What a sign saw when it fires; null when it does not. */
type Sight = { readonly saw: string; readonly flips: string } | null;

interface StopSign {
  readonly because: string;
  readonly effect: "deny" | "reason";
  readonly look: (input: PolicyInput) => Sight;
}

/** Below this size, "more than half" of the rows updated says nothing. */
const SMALLEST_UPDATED_TABLE = 10n;

const SIGNS: Readonly<Record<StopSignName, StopSign>> = {
  "table-emptied": {
    because: "a table that held rows would be left empty",
    effect: "deny",
    look: ({ tables }) =>
      sightOf(
        tables.filter((t) => t.delete > 0n && t.rowsBefore > 0n && t.rowsAfter <= 0n),
        (t) => `${t.name}: all of ${rowsInWords(t.rowsBefore)} deleted`,
        (t) => `at least 1 row left in ${t.name}`,
      ),
  },
  "over-half": {
    because: "more than half of a table would be deleted",
    effect: "deny",
    look: ({ tables }) =>
      sightOf(
        tables.filter((t) => t.rowsBefore > 0n && t.delete * 2n > t.rowsBefore),
        (t) => shareInWords(t, "delete"),
        (t) => `${rowsInWords(t.rowsBefore / 2n)} of ${t.name} deleted, or fewer`,
      ),
  },
  "over-half-updated": {
    because: "more than half of a table would be updated",
    effect: "reason",
    look: ({ tables }) =>
      sightOf(
        tables.filter((t) => t.rowsBefore >= SMALLEST_UPDATED_TABLE && t.update * 2n > t.rowsBefore),
        (t) => shareInWords(t, "update"),
        (t) => `${rowsInWords(t.rowsBefore / 2n)} of ${t.name} updated, or fewer`,
      ),
  },
  "no-where": {
    because: "a statement without WHERE touches every row of its table",
    effect: "reason",
    look: ({ kind, job, rows }) =>
      kind === "job" && !job.selective && rows.update + rows.delete > 0n
        ? {
            saw: `${job.name} has an UPDATE or DELETE without WHERE`,
            flips: "a WHERE in every UPDATE and DELETE",
          }
        : null,
  },
  "column-levelled": {
    because: "every row of a table would end with the same value in a column",
    effect: "reason",
    look: ({ tables }) =>
      sightOf(
        tables.filter((t) => t.rowsBefore > 1n && t.levelled.length > 0),
        (t) => `${t.name}: one value everywhere in ${t.levelled.join(", ")}`,
        (t) => `${t.levelled.join(", ")} of ${t.name} left different in some rows`,
      ),
  },
  "protected-lost": {
    because: "a value that the configuration protects would be lost",
    effect: "deny",
    look: ({ tables }) =>
      sightOf(
        tables.filter((t) => t.protectedLost > 0n),
        (t) => `${t.name}: ${rowsInWords(t.protectedLost)}${originInWords(t)}`,
        (t) => `no protected row of ${t.name} deleted or overwritten`,
      ),
  },
  "outside-scope": {
    because: "a table changes that the job did not declare",
    effect: "deny",
    look: ({ job, tables }) => {
      const { scope } = job;
      if (scope === undefined || scope === null) return null;
      return sightOf(
        tables.filter((t) => t.insert + t.update + t.delete > 0n && !scope.includes(t.name)),
        (t) => `${t.name} is outside ${scope.join(", ")}`,
        (t) => `no change in ${t.name}`,
      );
    },
  },
};

/** Where results say a stop sign stands. */
export const BUILT_IN = "built in";

/** The check of one stop sign. */
export function stopSign(name: StopSignName): Check {
  const sign = SIGNS[name];
  return {
    rule: name,
    at: BUILT_IN,
    run: (facts) => {
      const sight = sign.look(facts.input);
      const seen = { rule: name, at: BUILT_IN, because: sign.because };
      if (sight === null) return passes({ ...seen, saw: "", flips: "" });
      return follow(effectOf(sign, facts), { ...seen, ...sight }, facts);
    },
  };
}

function effectOf(sign: StopSign, facts: Facts): Consequence {
  const undo = facts.input.kind === "undo";
  if (sign.effect === "deny" && !undo) return { kind: "deny" };
  const asked = { ...NOTHING_ASKED, approvals: [{ people: 1, groups: [] }], approverReason: !undo };
  return { kind: "require", asked };
}

/** A parent that is deleted takes its children along, and the job names only the parent. */
function originInWords(t: PolicyTable): string {
  return t.origin === "cascade" || t.origin === "trigger" ? `, by ${t.origin}` : "";
}

function sightOf(
  tables: readonly PolicyTable[],
  saw: (t: PolicyTable) => string,
  flips: (t: PolicyTable) => string,
): Sight {
  if (tables.length === 0) return null;
  return { saw: listInWords(tables.map(saw)), flips: listInWords(tables.map(flips)) };
}

function shareInWords(t: PolicyTable, op: "update" | "delete"): string {
  return `${t.name}: ${op} ${rowsInWords(t[op])} of ${rowsInWords(t.rowsBefore)}, ${percent(t[op], t.rowsBefore)}`;
}
