/**
 * The card: five lines that let a second person see in ten seconds that a plan is wrong. The marks are computed here,
 * from facts that the reader's own machine read out of the plan's bytes and the target; nobody can set, hide or
 * reword them. The mark words stand at the right edge, so that an eye running down it misses none.
 *
 * | slot     | OK                                  | LOOK                                           | STOP                                          |
 * | -------- | ----------------------------------- | ---------------------------------------------- | --------------------------------------------- |
 * | WHERE    | all signals of the target agree     | a signal is absent; not read on this machine    | unproven, contradicted, other place or environment |
 * | WHAT     | only what the job names             | cascades, triggers, schema, agent-made, source not committed | against the declared direction; effects outside |
 * | HOW MUCH | inside the declared range           | no declared range; over 10 % of a table without | outside it; over 50 % of a table; guess off by ten |
 * | ODD      | no rule fired                       | recent edits, hot rows, age gaps; nobody looked | protected, second tenant, extreme, rare        |
 * | BACK     | undo rehearsed, all rows identical  | on a sample, or by the requester's machine only | not rehearsed, rows lost, or irreversible      |
 */
import type { Evidence, VerdictName } from "../environment/evidence.js";
import { agreement } from "./envcheck.js";
import { type Cell, hang, pad, page, paint, type Paper, paperOf, widthOf } from "./layout.js";
import { count, outOf, plural, share } from "./numbers.js";
import type { PatternView } from "./patterns.js";
import { patternWords } from "./patterns.js";
import type { Palette } from "./palette.js";
import { clean } from "./sanitise.js";

/** How much a reader must worry, in rising order. */
export const MARKS = ["OK", "LOOK", "STOP"] as const;
/** One of {@link MARKS}. */
export type Mark = (typeof MARKS)[number];

/** The slots in their order. */
export const SLOTS = ["WHERE", "WHAT", "HOW MUCH", "ODD", "BACK"] as const;
/** One of {@link SLOTS}. */
export type SlotName = (typeof SLOTS)[number];

/** One line of the card. */
export interface CardSlot {
  readonly slot: SlotName;
  readonly text: string;
  readonly mark: Mark;
}

/** The five lines and the worst of their marks. */
export interface Card {
  readonly slots: readonly CardSlot[];
  readonly worst: Mark;
}

/** A table's share of the effect. */
export interface CardTable {
  readonly name: string;
  readonly insert: number;
  readonly update: number;
  readonly delete: number;
  /** Rows before the job, which shares are of. */
  readonly rowsBefore: number;
  readonly origin: "job" | "cascade" | "trigger" | "unknown";
  /** Columns that an update changes in some row. */
  readonly columns: readonly string[];
}

/** Rules that look for rows unlike the rest; the first five stop, the others ask to look. */
export type OddRule =
  | "protected-value"
  | "second-tenant"
  | "extreme-value"
  | "ratio"
  | "rare-transition"
  | "age-gap"
  | "recent-edit"
  | "hot-row";

/** Rows that one rule found. */
export interface OddFinding {
  readonly rule: OddRule;
  readonly rows: number;
  /** In words, without the number of rows: `already paid`. */
  readonly words: string;
}

/** Whether an undo was really tried. */
export type Rehearsed =
  | { readonly kind: "all" | "sample"; readonly identical: number; readonly of: number }
  | { readonly kind: "not"; readonly why: string };

/** Everything that the card is computed from. */
export interface CardFacts {
  readonly target: string;
  /** One line of the adapter about the target; null when it was not read here. */
  readonly description: string | null;
  readonly verdict: VerdictName;
  readonly contradicted: boolean;
  readonly evidence: readonly Evidence[];
  /** Whether target and row counts were read by the machine that draws the card. */
  readonly readHere: boolean;
  /** The clone that the job was rehearsed on; absent where it was the target or a copy of it. */
  readonly clone?: string;
  /** What the plan was made for: its environment, and whether its identity is the target's. */
  readonly planned: { readonly verdict: VerdictName; readonly samePlace: boolean };
  readonly tables: readonly CardTable[];
  readonly patterns: readonly PatternView[];
  readonly schemaChanges: number;
  readonly requestedBy: "person" | "ci" | "agent";
  /** The job's file, as the reader's own checkout has it; `none` where there is no file. */
  readonly source: "committed" | "changed" | "unknown" | "none";
  /** Changes that go against the direction that the job declares, in words. */
  readonly againstDirection: readonly string[];
  /** What leaves the target and cannot be fetched back, in words: `12 rows of mail_queue go out`. */
  readonly externalEffects: readonly string[];
  /** Declared counts: table → operation → `[least, most]`; null when the job declares none. */
  readonly expect: Readonly<Record<string, Readonly<Record<string, readonly [number, number]>>>> | null;
  /** The reader's own guess before they saw the plan: an order of magnitude of `table`'s rows; null when not asked or unknown. */
  readonly guess: { readonly table: string; readonly least: number; readonly most: number } | null;
  /** Configured sums in words, e.g. `118,412.75 EUR`. */
  readonly sums: readonly string[];
  readonly odd: { readonly rules: number; readonly rows: number; readonly findings: readonly OddFinding[] };
  readonly undo: { readonly rehearsed: Rehearsed; readonly irreversible: readonly string[] };
}

/** Tables that one line names before it says how many more there are. */
const NAMED_TABLES = 3;

/** The card of these facts. Total and deterministic: the same facts give the same card everywhere. */
export function card(facts: CardFacts): Card {
  const slots = [where(facts), what(facts), howMuch(facts), odd(facts), back(facts)];
  return { slots, worst: worstOf(slots.map((s) => s.mark)) };
}

/** The most worrying of some marks; OK for none. */
export function worstOf(marks: readonly Mark[]): Mark {
  return MARKS[Math.max(0, ...marks.map((m) => MARKS.indexOf(m)))] ?? "STOP";
}

/** The first slot with the worst mark; the question at approval is drawn from it. */
export function worstSlot(c: Card): SlotName {
  return c.slots.find((s) => s.mark === c.worst)?.slot ?? "WHERE";
}

/** A reason for a mark; a slot shows all of its reasons and takes the worst mark. */
interface Reason {
  readonly mark: Mark;
  readonly text: string;
}

function slotOf(slot: SlotName, facts: readonly string[], reasons: readonly Reason[]): CardSlot {
  // Worst first: a line that wraps on narrow paper shows what matters on its first line.
  const order = [...reasons].sort((a, b) => MARKS.indexOf(b.mark) - MARKS.indexOf(a.mark));
  const stops = order.filter((r) => r.mark === "STOP").map((r) => r.text);
  const rest = order.filter((r) => r.mark !== "STOP").map((r) => r.text);
  const text = [...stops, ...facts, ...rest].join("; ");
  return { slot, text, mark: worstOf(reasons.map((r) => r.mark)) };
}

function where(f: CardFacts): CardSlot {
  const reasons: Reason[] = [];
  const at = (mark: Mark, text: string): void => void reasons.push({ mark, text });
  if (!f.planned.samePlace) at("STOP", "not the place that the plan was made for");
  if (f.planned.verdict !== f.verdict) at("STOP", `planned for ${f.planned.verdict}, this is ${f.verdict}`);
  if (f.contradicted) at("STOP", "signals contradict each other: a copy, or another place under this name");
  else if (f.verdict === "unproven") at("STOP", "unproven, guarded as production");
  const doubtful = f.evidence
    .filter(isDoubtful)
    .map((e) => `${e.source} ${e.state === "absent" ? "absent" : "disagrees"}`);
  if (doubtful.length > 0 && !f.contradicted) at("LOOK", doubtful.join(", "));
  if (!f.readHere) at("LOOK", "as read by the requester's machine");
  if (f.clone !== undefined) at("LOOK", `rehearsed on the clone ${f.clone}`);
  const place = f.description === null ? f.target : `${f.target}, ${f.description}`;
  // That all of them agree is what OK says, and the banner says how many.
  const agree = f.readHere && reasons.length > 0 ? [agreement(f.evidence)] : [];
  return slotOf("WHERE", [place, ...agree], reasons);
}

/** A signal that should speak for the place and does not. */
function isDoubtful(e: Evidence): boolean {
  return e.side === "target" && e.strength !== "none" && (e.state === "absent" || e.state === "contradicts");
}

function what(f: CardFacts): CardSlot {
  const reasons: Reason[] = [
    ...f.againstDirection.map((text) => ({
      mark: "STOP" as const,
      text: `against the declared direction: ${text}`,
    })),
    ...f.externalEffects.map((text) => ({ mark: "STOP" as const, text })),
    ...f.tables.filter((t) => t.origin === "cascade" || t.origin === "trigger").map(sideEffect),
  ];
  const look = (text: string): void => void reasons.push({ mark: "LOOK", text });
  if (f.schemaChanges > 0) look(plural(f.schemaChanges, "schema change"));
  if (f.requestedBy === "agent") look("made by an agent");
  if (f.source === "changed") look("job file not committed");
  if (f.source === "unknown") look("job file in no commit seen here");
  const own = f.tables.filter((t) => t.origin === "job" || t.origin === "unknown");
  const acts = own.slice(0, NAMED_TABLES).map((t) => actOf(t, f.patterns));
  if (own.length > NAMED_TABLES) acts.push(`and ${plural(own.length - NAMED_TABLES, "more table")}`);
  return slotOf("WHAT", f.tables.length + f.schemaChanges === 0 ? ["nothing changes"] : acts, reasons);
}

function sideEffect(t: CardTable): Reason {
  return { mark: "LOOK", text: `${plural(rowsOf(t), "row")} of ${t.name} by ${t.origin}` };
}

/** `orders.status pending → cancelled` where one change is nearly all of it, else `update orders (status, note)`. */
function actOf(t: CardTable, patterns: readonly PatternView[]): string {
  const main = patterns.find((p) => p.table === t.name && p.op === "update" && p.rows * 10 >= t.update * 9);
  const words = [
    t.delete > 0 ? `delete from ${t.name}` : "",
    t.insert > 0 ? `insert into ${t.name}` : "",
    t.update === 0
      ? ""
      : main === undefined
        ? `update ${t.name} (${t.columns.join(", ")})`
        : patternWords(main),
  ];
  return words.filter((w) => w !== "").join(", ");
}

function rowsOf(t: CardTable): number {
  return t.insert + t.update + t.delete;
}

function howMuch(f: CardFacts): CardSlot {
  const ranges = expectations(f);
  const reasons: Reason[] = [
    ...ranges.filter((r) => !r.inside).map((r) => ({ mark: "STOP" as const, text: `${r.words}: outside` })),
    ...f.tables
      .filter((t) => portion(t) > 0.5)
      .map((t) => ({ mark: "STOP" as const, text: `${touched(t)} of ${t.name}` })),
    ...guessReason(f),
  ];
  const look = (text: string): void => void reasons.push({ mark: "LOOK", text });
  const undeclared = f.tables.filter(
    (t) => portion(t) > 0.1 && portion(t) <= 0.5 && f.expect?.[t.name] === undefined,
  );
  for (const t of undeclared) look(`${touched(t)} of ${t.name}, no range declared`);
  if (f.expect === null && f.tables.length > 0 && undeclared.length === 0) look("no range declared");
  if (!f.readHere) look("sizes not read here");
  return slotOf(
    "HOW MUCH",
    [...sizes(f.tables), ...insideWords(ranges), ...guessWords(f), ...f.sums],
    reasons,
  );
}

/** Share of the rows before that is updated or deleted; inserts have no whole to be a share of. */
function portion(t: CardTable): number {
  return t.rowsBefore === 0 ? 0 : (t.update + t.delete) / t.rowsBefore;
}

function touched(t: CardTable): string {
  return share(t.update + t.delete, t.rowsBefore);
}

function sizes(tables: readonly CardTable[]): string[] {
  if (tables.length === 0) return ["0 rows"];
  const largest = [...tables].sort((a, b) => rowsOf(b) - rowsOf(a));
  const words = largest.slice(0, NAMED_TABLES).map((t) => {
    const part = t.update + t.delete === 0 ? "" : ` (${touched(t)})`;
    return `${count(rowsOf(t))} ${t.name}${part}`;
  });
  return largest.length > NAMED_TABLES
    ? [...words, `and ${plural(largest.length - NAMED_TABLES, "more table")}`]
    : words;
}

interface Expectation {
  readonly inside: boolean;
  /** The operation is declared not to happen. */
  readonly isNever: boolean;
  readonly range: string;
  readonly words: string;
}

/** Every declared range held against the counts, tables that the plan does not touch included. */
function expectations(f: CardFacts): Expectation[] {
  return Object.entries(f.expect ?? {}).flatMap(([name, ops]) =>
    Object.entries(ops).map(([op, [least, most]]) => {
      const found = countOf(
        f.tables.find((t) => t.name === name),
        op,
      );
      const range = `expected ${count(least)}..${count(most)}`;
      const words = `${range} ${name} ${op}s, found ${count(found)}`;
      return { inside: found >= least && found <= most, isNever: most === 0, range, words };
    }),
  );
}

function insideWords(ranges: readonly Expectation[]): string[] {
  // That an operation nobody named did not happen goes without saying.
  const inside = ranges.filter((r) => r.inside && !r.isNever);
  if (inside.length < 2) return inside.map((r) => r.range);
  return [`inside ${plural(inside.length, "declared range")}`];
}

function countOf(t: CardTable | undefined, op: string): number {
  if (t === undefined) return 0;
  if (op === "insert") return t.insert;
  if (op === "update") return t.update;
  return op === "delete" ? t.delete : rowsOf(t);
}

function guessedRows(f: CardFacts): number {
  const table = f.tables.find((t) => t.name === f.guess?.table);
  return table === undefined ? 0 : rowsOf(table);
}

function guessWords(f: CardFacts): string[] {
  return f.guess === null ? [] : [`you said ${count(f.guess.least)}-${count(f.guess.most)}`];
}

/** A guess misses by a decade when the next order of magnitude on either side does not hold the number either. */
function guessReason(f: CardFacts): Reason[] {
  if (f.guess === null) return [];
  const rows = guessedRows(f);
  const far = rows * 10 < f.guess.least || rows > f.guess.most * 10;
  const off = rows < f.guess.least || rows > f.guess.most;
  if (!off) return [];
  return [{ mark: far ? "STOP" : "LOOK", text: `${count(rows)} ${f.guess.table} is not what you said` }];
}

function odd(f: CardFacts): CardSlot {
  const { findings, rules, rows } = f.odd;
  if (rules === 0 && findings.length === 0) {
    return { slot: "ODD", text: "no rule looked for rows unlike the rest", mark: "LOOK" };
  }
  if (findings.length === 0) {
    const text = `nothing unlike the rest (${plural(rules, "rule")} looked at ${plural(rows, "row")})`;
    return { slot: "ODD", text, mark: "OK" };
  }
  const total = findings.reduce((sum, o) => sum + o.rows, 0);
  const words = findings.map((o) => `${count(o.rows)} ${o.words}`).join(", ");
  return {
    slot: "ODD",
    text: `${plural(total, "row")} unlike the rest: ${words}`,
    mark: worstOf(findings.map(markOfOdd)),
  };
}

function markOfOdd(o: OddFinding): Mark {
  switch (o.rule) {
    case "protected-value":
    case "second-tenant":
    case "extreme-value":
    case "ratio":
    case "rare-transition":
      return "STOP";
    case "age-gap":
    case "recent-edit":
    case "hot-row":
      return "LOOK";
  }
}

function back(f: CardFacts): CardSlot {
  const { rehearsed, irreversible } = f.undo;
  const outside = [...irreversible, ...f.externalEffects];
  const reasons: Reason[] = outside.map((text) => ({ mark: "STOP", text: `cannot be taken back: ${text}` }));
  const tried = rehearsalReason(rehearsed, f.readHere);
  return slotOf("BACK", [], [...reasons, tried]);
}

function rehearsalReason(r: Rehearsed, triedHere: boolean): Reason {
  if (r.kind === "not") return { mark: "STOP", text: `undo not rehearsed: ${r.why}` };
  const rows = `${outOf(r.identical, r.of)} rows came back`;
  if (r.identical < r.of) return { mark: "STOP", text: `undo loses rows: ${rows}` };
  if (r.kind === "sample") return { mark: "LOOK", text: `undo rehearsed on a sample, ${rows}` };
  if (!triedHere) return { mark: "LOOK", text: `undo rehearsed by the requester's machine, ${rows}` };
  return { mark: "OK", text: `undo rehearsed, ${rows}` };
}

/** The card as a text of its own. */
export function renderCard(view: Card, palette: Palette, width: number): string {
  return page(cardLines(clean(view), paperOf(palette, width)));
}

/** The card's lines, of a clean card. Accessible: `STOP. Odd. 3 rows unlike the rest.`, one sentence a line, marks first. */
export function cardLines(c: Card, paper: Paper): string[] {
  return c.slots.flatMap((s) => (paper.palette.form === "accessible" ? spoken(s, paper) : aligned(s, paper)));
}

function spoken(s: CardSlot, paper: Paper): string[] {
  const name = s.slot.charAt(0) + s.slot.slice(1).toLowerCase();
  const text = s.text.replaceAll("→", paper.palette.glyph.arrow);
  return hang({ text: "" }, { text: `${s.mark}. ${name}. ${text}.` }, paper);
}

const LABEL = 12;

function aligned(s: CardSlot, paper: Paper): string[] {
  const p = paper.palette;
  const mark = markCell(s.mark, p);
  const inner = { ...paper, width: paper.width - widthOf(" STOP ") - 1 };
  const head = { text: `  ${s.slot.padEnd(LABEL - 2)}`, style: p.title };
  const lines = hang(head, { text: s.text.replaceAll("→", p.glyph.arrow) }, inner);
  const [first = "", ...rest] = lines;
  return [`${pad(first, paper.width - widthOf(mark.text))}${paint(mark)}`, ...rest];
}

function markCell(mark: Mark, p: Palette): Cell {
  switch (mark) {
    case "OK":
      return { text: "OK" };
    case "LOOK":
      return { text: "LOOK", style: p.look };
    case "STOP":
      return { text: "STOP", style: p.stop };
  }
}
