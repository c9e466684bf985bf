/** Status: what waits for whom, and what is under way. */
import type { NextStep } from "../base/errors.js";
import { nextLines } from "./command.js";
import { holdWords } from "./hold.js";
import { type Cell, type Column, hang, page, type Paper, paperOf, table } from "./layout.js";
import { count, when } from "./numbers.js";
import type { Palette } from "./palette.js";
import { titled } from "./plan.js";
import { clean } from "./sanitise.js";

/** One plan and where it stands. */
export interface PlanStatusLine {
  readonly id: string;
  readonly target: string;
  readonly job: string;
  readonly rows: number;
  readonly requester: string;
  readonly state:
    | "waiting"
    | "approved"
    | "allowed"
    | "denied"
    | "rejected"
    | "expired"
    | "applied"
    | "undone";
  /** What it waits for or how it ended: `1 of 2 people`, `ravi`. */
  readonly detail: string;
  readonly expiresAt: string;
}

/** One run and where it stands. */
export interface RunStatusLine {
  readonly id: string;
  readonly target: string;
  readonly plan: string;
  readonly state: "started" | "running" | "done" | "stopped" | "failed" | "undone";
  /** Rows that an undo of a part left as the run wrote them. */
  readonly left?: number | null;
  readonly written: number;
  readonly planned: number;
}

/** What `status` shows. */
export interface StatusView {
  readonly plans: readonly PlanStatusLine[];
  readonly runs: readonly RunStatusLine[];
  /** Targets where nothing runs until somebody releases them. */
  readonly holds?: readonly {
    readonly target: string;
    readonly by: string;
    readonly at: string;
    readonly reason: string;
  }[];
  readonly next: readonly NextStep[];
}

/** The status screen. */
export function renderStatus(view: StatusView, palette: Palette, width: number): string {
  const v = clean(view);
  const paper = paperOf(palette, width);
  if (v.plans.length + v.runs.length + (v.holds?.length ?? 0) === 0)
    return page(["  No plans and no runs.", ...nextLines(v.next, paper)]);
  const lines = [
    ...holdLines(v.holds ?? [], paper),
    ...planTable(v.plans, paper),
    ...runTable(v.runs, paper),
  ];
  return page([
    ...lines.slice(lines[0] === "" ? 1 : 0),
    ...(v.next.length === 0 ? [] : [""]),
    ...nextLines(v.next, paper),
  ]);
}

function holdLines(holds: NonNullable<StatusView["holds"]>, paper: Paper): string[] {
  return holds.flatMap((h) =>
    hang({ text: `  ${h.target}  ` }, { text: holdWords(h), style: paper.palette.note }, paper),
  );
}

const PLANS: readonly Column[] = [
  { head: "plan" },
  { head: "target" },
  { head: "job", room: "wrap" },
  { head: "rows", align: "right" },
  { head: "requester", room: "wrap" },
  { head: "state", room: "wrap" },
  { head: "expires (UTC)" },
];

function planTable(plans: readonly PlanStatusLine[], paper: Paper): string[] {
  if (plans.length === 0) return [];
  return titled(
    "PLANS",
    "",
    table(
      PLANS,
      plans.map((p) => planCells(p, paper.palette)),
      paper,
    ),
    paper,
  );
}

function planCells(l: PlanStatusLine, p: Palette): Cell[] {
  const waits = l.state === "waiting";
  return [
    { text: l.id },
    { text: l.target },
    { text: l.job },
    { text: count(l.rows) },
    { text: l.requester },
    { text: l.detail === "" ? l.state : `${l.state}, ${l.detail}`, ...(waits ? { style: p.note } : {}) },
    { text: when(l.expiresAt) },
  ];
}

function runWords({ state, left }: RunStatusLine): string {
  return left === null || left === undefined ? state : `${state}, partly undone: ${count(left)} rows left`;
}

const RUNS: readonly Column[] = [
  { head: "run" },
  { head: "target" },
  { head: "plan" },
  { head: "state", room: "wrap" },
  { head: "written", align: "right" },
  { head: "of", align: "right" },
];

function runTable(runs: readonly RunStatusLine[], paper: Paper): string[] {
  if (runs.length === 0) return [];
  const rows = runs.map((r) => [
    { text: r.id },
    { text: r.target },
    { text: r.plan },
    { text: runWords(r), ...(r.state === "stopped" ? { style: paper.palette.note } : {}) },
    { text: count(r.written) },
    { text: count(r.planned) },
  ]);
  return titled("RUNS", "", table(RUNS, rows, paper), paper);
}
