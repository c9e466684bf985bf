/** `env pin`: what is about to be written into a target, and `env list`: what the configuration names. */
import type { NextStep } from "../base/errors.js";
import type { VerdictName } from "../environment/evidence.js";
import { bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact } from "./error.js";
import { type Column, page, paperOf, table } from "./layout.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** What a pin fixes. Fingerprints are whole: a person compares them with what they know. */
export interface PinView {
  readonly target: string;
  readonly verdict: VerdictName;
  readonly description: string;
  readonly environment: string;
  readonly identity: string;
  readonly bundle: string;
  readonly ledger: string;
  readonly people: readonly string[];
  /** What is written where: `tables holdpoint_marker, …`, `identity in holdpoint.yaml`. */
  readonly writes: readonly string[];
  readonly done: boolean;
  readonly next: readonly NextStep[];
}

/** Room for the longest label of this screen. */
const WIDE = 9;

/** The pin before and after it is written. */
export function renderPin(view: PinView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const line = (label: string, text: string): string[] => fact(label, text, paper, WIDE);
  return page([
    ...bannerLines(
      { verdict: v.verdict, target: v.target, note: v.done ? "pinned" : "not pinned yet" },
      paper,
    ),
    "",
    ...line("Target", v.description),
    ...line("As", `${v.environment}, under the name ${v.target}`),
    ...line("Id", v.identity),
    ...line("Bundle", v.bundle),
    ...line("Ledger", v.ledger),
    ...(v.people.length === 0
      ? line("People", "nobody may approve yet")
      : v.people.flatMap((person) => line("People", person))),
    ...v.writes.flatMap((w) => line("Writes", w)),
    ...line(
      "State",
      v.done ? "The marker was written; no row of yours was changed." : "Nothing was written.",
    ),
    ...nextLines(v.next, paper, { room: WIDE }),
  ]);
}

/** One target of `env list`. */
export interface TargetLine {
  readonly target: string;
  readonly adapter: string;
  readonly claims: string;
  readonly identity: string | null;
  readonly from: string;
}

const COLUMNS: readonly Column[] = [
  { head: "target" },
  { head: "adapter" },
  { head: "claims" },
  { head: "identity", room: "wrap" },
  { head: "url from", room: "wrap" },
];

/** The targets that the configuration names; nothing is connected to. */
export function renderTargets(view: readonly TargetLine[], palette: Palette, width: number): string {
  const v = clean(view);
  const rows = v.map((t) => [
    { text: t.target },
    { text: t.adapter },
    { text: t.claims },
    { text: t.identity ?? "not pinned" },
    { text: t.from },
  ]);
  return page(rows.length === 0 ? ["  No targets."] : table(COLUMNS, rows, paperOf(palette, width)));
}
