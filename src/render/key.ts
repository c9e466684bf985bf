/** Keys: the people's and those that lie here, and what one of them may do. */
import type { NextStep } from "../base/errors.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { type Column, hang, page, type Paper, paperOf, table } from "./layout.js";
import { plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { titled } from "./plan.js";
import { clean } from "./sanitise.js";
import type { PersonLine } from "./trust.js";

/** A key that lies here. */
export interface ReachLine {
  readonly where: string;
  readonly fingerprint: string;
  readonly type: string;
  /** `dana: plan, approval`, or why it is nobody's. */
  readonly whose: string;
}

/** What `key list` shows. */
export interface KeyListView {
  readonly people: readonly PersonLine[];
  readonly inReach: readonly ReachLine[];
  readonly problems: readonly string[];
  readonly next: readonly NextStep[];
}

const PEOPLE: readonly Column[] = [
  { head: "name" },
  { head: "key", room: "wrap" },
  { head: "valid", room: "wrap" },
];
const REACH: readonly Column[] = [
  { head: "where", room: "wrap" },
  { head: "key", room: "wrap" },
  { head: "whose, for what", room: "wrap" },
];

/** The keys that the people file knows beside those that lie here. */
export function renderKeyList(view: KeyListView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const lines = [
    ...titled(
      "ON THE LIST",
      plural(v.people.length, "person", "people"),
      peopleLines(v.people, paper),
      paper,
    ),
    ...titled("HERE", plural(v.inReach.length, "key"), reachLines(v.inReach, paper), paper),
    ...titled(
      "NOT USABLE",
      "",
      v.problems.flatMap((p) => hang({ text: "  " }, { text: p }, paper)),
      paper,
    ),
  ];
  return page([
    ...lines.slice(lines[0] === "" ? 1 : 0),
    "",
    ...labelled("State", "Nothing was signed, nothing was written.", paper),
    ...nextLines(v.next, paper),
  ]);
}

function peopleLines(people: readonly PersonLine[], paper: Paper): string[] {
  const rows = people.flatMap((p) =>
    p.keys.map((k, i) => [
      { text: i === 0 ? p.name : "" },
      { text: `${k.fingerprint} (${k.type}, line ${k.line})` },
      { text: k.validity },
    ]),
  );
  return rows.length === 0 ? ["  nobody"] : table(PEOPLE, rows, paper);
}

function reachLines(keys: readonly ReachLine[], paper: Paper): string[] {
  const rows = keys.map((k) => [
    { text: k.where },
    { text: `${k.fingerprint} (${k.type})` },
    { text: k.whose },
  ]);
  return rows.length === 0 ? ["  no key"] : table(REACH, rows, paper);
}

/** What `key check` shows. */
export interface KeyCheckView {
  readonly fingerprint: string;
  readonly person: string;
  readonly groups: readonly string[];
  readonly may: readonly string[];
  readonly mayNot: readonly string[];
  readonly next: readonly NextStep[];
}

/** Whose key it is, what it may sign, and that it signs. */
export function renderKeyCheck(view: KeyCheckView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  return page([
    ...fact("Key", v.fingerprint, paper),
    ...fact("Person", `${v.person}${v.groups.length === 0 ? "" : `, ${v.groups.join(", ")}`}`, paper),
    ...fact("May", v.may.join(", ") || "nothing", paper),
    ...v.mayNot.flatMap((m) => fact("Not", m, paper)),
    ...labelled("State", "It signed a trial that allows nothing. Nothing was written.", paper),
    ...nextLines(v.next, paper),
  ]);
}
