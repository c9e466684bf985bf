/** `env check`: every signal, apart by side, and what follows from them. */
import type { Evidence, Verdict } from "../environment/evidence.js";
import type { NextStep } from "../base/errors.js";
import { bannerLines } from "./banner.js";
import { nextLines } from "./command.js";
import { fact, labelled } from "./error.js";
import { type Cell, type Column, hang, page, type Paper, paperOf, table } from "./layout.js";
import { plural } from "./numbers.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** What `env check` shows. */
export interface EnvView {
  readonly target: string;
  readonly verdict: Verdict;
  /** One line of the adapter: engine, version, place. */
  readonly description: string;
  /** Who holds it, in words; absent when nobody does. */
  readonly hold?: string;
  /** Where each part of the connection came from, e.g. `url: holdpoint.yaml:3`. */
  readonly origins: readonly string[];
  readonly next: readonly NextStep[];
}

/** Room for the longest label of this screen. */
const WIDE = 9;

/** The environment's screen; the verdict is repeated in words as its last block. */
export function renderEnvCheck(view: EnvView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  const { verdict } = v;
  const side = (s: Evidence["side"]): readonly Evidence[] => verdict.evidence.filter((e) => e.side === s);
  return page([
    ...bannerLines({ verdict: verdict.name, target: v.target, note: agreement(verdict.evidence) }, paper),
    "",
    ...fact("Target", v.description, paper, WIDE),
    ...fact("Hold", v.hold, paper, WIDE),
    ...v.origins.flatMap((o) => fact("From", o, paper, WIDE)),
    "",
    ...evidenceLines("From the target", side("target"), paper),
    ...machineLines(side("machine"), paper),
    "",
    ...labelled("Verdict", verdictWords(v.target, verdict), paper, WIDE),
    ...verdict.because.flatMap((because) => labelled("Why", because, paper, WIDE)),
    ...labelled("State", "Nothing was written.", paper, WIDE),
    ...nextLines(v.next, paper, { room: WIDE }),
  ]);
}

/** `all 3 signals from the target agree`, `2 of 5 signals from the target disagree`, `no signal from the target`. */
export function agreement(evidence: readonly Evidence[]): string {
  const signals = evidence.filter((e) => e.side === "target" && e.strength !== "none");
  const against = signals.filter((e) => e.state === "contradicts").length;
  const absent = signals.filter((e) => e.state === "absent").length;
  if (signals.length === 0) return "no signal from the target";
  if (against > 0) return `${against} of ${plural(signals.length, "signal")} from the target disagree`;
  if (absent === signals.length) return "nothing in the target says what it is";
  if (absent > 0)
    return `${signals.length - absent} of ${plural(signals.length, "signal")} from the target agree`;
  return signals.length === 1
    ? "1 signal from the target agrees"
    : `all ${signals.length} signals from the target agree`;
}

function verdictWords(target: string, verdict: Verdict): string {
  if (verdict.contradicted)
    return `UNPROVEN. The signals contradict each other: nothing is planned or applied on ${target}.`;
  switch (verdict.name) {
    case "production":
      return `PRODUCTION. Writing to ${target} needs an approved plan.`;
    case "unproven":
      return `UNPROVEN. Every production rule applies to ${target} until this is settled.`;
    case "staging":
    case "development":
      return `${verdict.name}. The rules for ${verdict.name} apply to ${target}.`;
  }
}

const COLUMNS: readonly Column[] = [
  { head: "" },
  { head: "", room: "wrap" },
  { head: "says" },
  { head: "strength" },
];

const MACHINE_COLUMNS: readonly Column[] = COLUMNS.map((c) => ({ ...c, head: "" }));

function evidenceLines(title: string, evidence: readonly Evidence[], paper: Paper): string[] {
  if (evidence.length === 0) return [`  ${title}: nothing.`];
  const [source, ...rest] = COLUMNS;
  const columns = [{ ...source, head: title }, ...rest];
  return table(
    columns,
    evidence.map((e) => evidenceRow(e, paper.palette)),
    paper,
  );
}

function machineLines(evidence: readonly Evidence[], paper: Paper): string[] {
  if (evidence.length === 0) return [];
  // Words of their own: as the head of a column they would take the room of what it says.
  const title = hang(
    { text: "  " },
    { text: "From this machine (never decides)", style: paper.palette.faint },
    paper,
  );
  return [
    "",
    ...title,
    ...table(
      MACHINE_COLUMNS,
      evidence.map((e) => evidenceRow(e, paper.palette)),
      paper,
    ),
  ];
}

function evidenceRow(e: Evidence, p: Palette): Cell[] {
  const says = e.state === "contradicts" && e.side === "machine" ? "disagrees" : saysOf(e);
  return [
    { text: e.source },
    { text: detailOf(e) },
    { text: says, ...(e.state === "contradicts" ? { style: p.note } : {}) },
    { text: e.strength },
  ];
}

function saysOf(e: Evidence): string {
  switch (e.state) {
    case "absent":
      return "absent";
    case "contradicts":
      return e.says === null ? "disagrees" : `${e.says}, disagrees`;
    case "agrees":
    case "informs":
      return e.says ?? "-";
  }
}

function detailOf(e: Evidence): string {
  if (e.expected === undefined || e.found === undefined) return e.detail;
  return `${e.detail} (expected ${e.expected}, found ${e.found})`;
}
