/** Trust: who may sign, from which files, and whether targets believe the same. */
import type { NextStep } from "../base/errors.js";
import { nextLines } from "./command.js";
import { labelled } from "./error.js";
import { type Column, hang, page, type Paper, paperOf, table } from "./layout.js";
import { plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { titled } from "./plan.js";
import { clean } from "./sanitise.js";

/** One person of the bundle. */
export interface PersonLine {
  readonly name: string;
  readonly groups: readonly string[];
  readonly keys: readonly {
    readonly fingerprint: string;
    readonly type: string;
    readonly line: number;
    readonly validity: string;
  }[];
}

/** One target's opinion of the bundle. */
export interface PinLine {
  readonly target: string;
  readonly environment: string;
  /** The digest that the bundle for this target has here, whole: it is what people compare. */
  readonly bundle: string;
  readonly pinned: "same" | "other" | "not pinned" | "not asked";
}

/** What `trust show` shows. */
export interface TrustView {
  readonly people: readonly PersonLine[];
  readonly policies: readonly string[];
  readonly targets: readonly PinLine[];
  readonly next: readonly NextStep[];
}

/** The trust bundle's screen. */
export function renderTrust(view: TrustView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const lines = [
    ...titled("PEOPLE", plural(v.people.length, "person", "people"), peopleLines(v.people, paper), paper),
    ...titled(
      "POLICIES",
      plural(v.policies.length, "file"),
      v.policies.flatMap((f) => table([{ head: "", room: "wrap" }], [[{ text: f }]], paper)),
      paper,
    ),
    ...titled(
      "BUNDLE",
      "what each target must have pinned",
      v.targets.flatMap((t) => pinLines(t, paper)),
      paper,
    ),
  ];
  return page([
    ...lines.slice(lines[0] === "" ? 1 : 0),
    "",
    ...labelled("State", "Nothing was written.", paper),
    ...nextLines(v.next, paper),
  ]);
}

const PEOPLE: readonly Column[] = [
  { head: "name" },
  { head: "groups", room: "wrap" },
  { head: "key", room: "wrap" },
  { head: "valid", room: "wrap" },
];

function peopleLines(people: readonly PersonLine[], paper: Paper): string[] {
  const rows = people.flatMap((person) =>
    person.keys.map((k, i) => [
      { text: i === 0 ? person.name : "" },
      { text: i === 0 ? person.groups.join(", ") || "no group" : "" },
      { text: `${k.fingerprint} (${k.type}, line ${k.line})` },
      { text: k.validity },
    ]),
  );
  return rows.length === 0 ? ["  nobody"] : table(PEOPLE, rows, paper);
}

function pinLines(t: PinLine, paper: Paper): string[] {
  const pinned = { text: t.pinned, ...(t.pinned === "other" ? { style: paper.palette.error } : {}) };
  // The digest has a line of its own: people compare it whole, and it is wider than the rest leaves room for.
  return [
    ...table(
      [{ head: "" }, { head: "" }, { head: "" }],
      [[{ text: t.target }, { text: t.environment }, pinned]],
      paper,
    ),
    ...hang({ text: "      " }, { text: t.bundle }, paper),
  ];
}
