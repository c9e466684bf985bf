/** The fault table: each kind of wrong plan puts its mark into its slot, within the first lines, in every form. */
import { describe, expect, test } from "@jest/globals";
import { reviewQuestion } from "../../src/render/approve.js";
import {
  card,
  type CardFacts,
  type Mark,
  renderCard,
  type SlotName,
  worstSlot,
} from "../../src/render/card.js";
import { renderMarkdown } from "../../src/render/markdown.js";
import { createPalette, plainPalette } from "../../src/render/palette.js";
import { type PatternView, rareTransitions } from "../../src/render/patterns.js";
import { evidence, facts, markdownView } from "../support/render-views.js";

const backends = facts.tables.filter((t) => t.name === "backends");
const listeners = facts.tables.filter((t) => t.name === "listeners");
const wide = listeners.map((t) => ({ ...t, update: 131_000 }));

const FAULTS: readonly (readonly [string, SlotName, Mark, Partial<CardFacts>])[] = [
  [
    "staging plan run against production",
    "WHERE",
    "STOP",
    { planned: { verdict: "staging", samePlace: true } },
  ],
  [
    "another database than planned",
    "WHERE",
    "STOP",
    { planned: { verdict: "production", samePlace: false } },
  ],
  ["physical copy of production", "WHERE", "STOP", { verdict: "unproven", contradicted: true }],
  ["unproven", "WHERE", "STOP", { verdict: "unproven", planned: { verdict: "unproven", samePlace: true } }],
  [
    "a medium signal is absent",
    "WHERE",
    "LOOK",
    { evidence: evidence.map((e) => (e.strength === "medium" ? { ...e, state: "absent" as const } : e)) },
  ],
  ["read by the requester's machine only", "WHERE", "LOOK", { readHere: false }],
  ["read by the requester's machine only", "HOW MUCH", "LOOK", { readHere: false }],
  ["missing or too wide condition", "HOW MUCH", "STOP", { tables: wide, expect: null }],
  ["ten times the expected rows", "HOW MUCH", "STOP", { expect: { backends: { delete: [100, 130] } } }],
  [
    "a tenth of the expected rows",
    "HOW MUCH",
    "STOP",
    { expect: { backends: { delete: [12_000, 13_000] } } },
  ],
  [
    "a declared table is not touched at all",
    "HOW MUCH",
    "STOP",
    { expect: { balancers: { update: [1, 5] } } },
  ],
  ["no declared range", "HOW MUCH", "LOOK", { expect: null }],
  [
    "over 10 % of a table without a range",
    "HOW MUCH",
    "LOOK",
    { expect: null, tables: backends.map((t) => ({ ...t, delete: 5000 })) },
  ],
  [
    "the reviewer's guess is off by more than ten",
    "HOW MUCH",
    "STOP",
    { guess: { table: "backends", least: 1, most: 9 } },
  ],
  [
    "the reviewer's guess is next to it",
    "HOW MUCH",
    "LOOK",
    { guess: { table: "backends", least: 100, most: 999 } },
  ],
  ["from and to swapped", "WHAT", "STOP", { againstDirection: ["listeners.status draining → idle"] }],
  [
    "cascade deletes",
    "WHAT",
    "LOOK",
    {
      tables: [
        ...facts.tables,
        ...backends.map((t) => ({ ...t, name: "checks", origin: "cascade" as const })),
      ],
    },
  ],
  ["made by an agent", "WHAT", "LOOK", { requestedBy: "agent" }],
  ["job file not committed", "WHAT", "LOOK", { source: "changed" }],
  ["job file in no commit that the reader sees", "WHAT", "LOOK", { source: "unknown" }],
  ["schema changes", "WHAT", "LOOK", { schemaChanges: 1 }],
  ["trigger sends mail: what", "WHAT", "STOP", { externalEffects: ["trigger notify sends mail"] }],
  ["trigger sends mail: back", "BACK", "STOP", { externalEffects: ["trigger notify sends mail"] }],
  ["protected rows included", "ODD", "STOP", odd("protected-value")],
  ["second tenant included", "ODD", "STOP", odd("second-tenant")],
  ["amount in cents instead of euros", "ODD", "STOP", odd("ratio")],
  ["extreme amounts", "ODD", "STOP", odd("extreme-value")],
  ["rare transition", "ODD", "STOP", odd("rare-transition")],
  ["hot rows", "ODD", "LOOK", odd("hot-row")],
  ["no rule looked", "ODD", "LOOK", { odd: { rules: 0, rows: 0, findings: [] } }],
  [
    "undo rehearsal loses a row",
    "BACK",
    "STOP",
    { undo: { rehearsed: { kind: "all", identical: 2443, of: 2444 }, irreversible: [] } },
  ],
  [
    "undo rehearsed on a sample",
    "BACK",
    "LOOK",
    { undo: { rehearsed: { kind: "sample", identical: 100, of: 100 }, irreversible: [] } },
  ],
  [
    "undo not rehearsed",
    "BACK",
    "STOP",
    { undo: { rehearsed: { kind: "not", why: "merge plan" }, irreversible: [] } },
  ],
];

function odd(rule: CardFacts["odd"]["findings"][number]["rule"]): Partial<CardFacts> {
  return { odd: { rules: 7, rows: 2444, findings: [{ rule, rows: 3, words: "unlike the rest" }] } };
}

describe("a good plan", () => {
  test("is OK in all five slots, each one line at 100 columns", () => {
    const c = card(facts);
    expect(c.slots.map((s) => s.mark)).toEqual(["OK", "OK", "OK", "OK", "OK"]);
    expect(renderCard(c, plainPalette, 100).trimEnd().split("\n")).toHaveLength(5);
  });
});

describe.each(FAULTS)("%s", (_fault, slot, mark, changed) => {
  const c = card({ ...facts, ...changed });

  test(`${slot} ${mark}`, () => {
    expect(c.slots.find((s) => s.slot === slot)?.mark).toBe(mark);
  });

  test("is seen in the first 12 lines, the same in colour, plain, accessible and Markdown", () => {
    const line = new RegExp(`^ {2}${slot} .* ${mark}$`, "m");
    for (const form of ["text", "plain"] as const) {
      const drawn = renderCard(c, createPalette({ level: 0, form }), 100);
      expect(drawn.split("\n").slice(0, 12).join("\n")).toMatch(line);
    }
    const spoken = renderCard(c, createPalette({ level: 0, form: "accessible" }), 100);
    expect(spoken).toMatch(new RegExp(`^${mark}\\. ${slot}\\. `, "im"));
    const markdown = renderMarkdown({ ...markdownView, card: c }, "markdown");
    expect(markdown).toMatch(new RegExp(`^\\| ${slot} \\| .* \\| ${mark} \\|$`, "m"));
    expect(markdown.split("\n")[0]).toContain(`${mark} on ${slot}`);
  });
});

test("escape codes in what the card names change no mark and no line", () => {
  const evil = card({ ...facts, target: "elb\u001b[2K\r-prod", description: "x\u202e" });
  const drawn = renderCard(evil, plainPalette, 120);
  expect(drawn).toContain("elb\\x1b[2K\\r-prod, x\\u202e");
  expect(evil.slots.map((s) => s.mark)).toEqual(card(facts).slots.map((s) => s.mark));
});

describe("rare transitions", () => {
  const pattern = (from: string, rows: number): PatternView => ({
    table: "t",
    op: "update",
    columns: [{ column: "status", from, to: "x" }],
    rows,
  });

  test("a few among many are found", () => {
    const found = rareTransitions([pattern("a", 1181), pattern("b", 21), pattern("c", 2)]);
    expect(found.map((f) => [f.pattern.rows, f.of])).toEqual([[2, 1204]]);
  });

  test("21 rows, 0.5 % or more, and rows that are all alone are not", () => {
    expect(rareTransitions([pattern("a", 100_000), pattern("b", 21)])).toEqual([]);
    expect(rareTransitions([pattern("a", 995), pattern("b", 5)])).toEqual([]);
    expect(rareTransitions(Array.from({ length: 1000 }, (_, i) => pattern(String(i), 1)))).toEqual([]);
  });
});

describe("the question at approval", () => {
  test("comes from the worst slot", () => {
    const cascade = {
      ...facts,
      tables: [
        ...facts.tables,
        ...backends.map((t) => ({ ...t, name: "checks", delete: 88, origin: "cascade" as const })),
      ],
    };
    expect(reviewQuestion(cascade, card(cascade))).toEqual({
      slot: "WHAT",
      text: "How many rows change that the job does not mention?",
      answer: "88",
    });
    const strange = { ...facts, ...odd("ratio") };
    expect(reviewQuestion(strange, card(strange))).toMatchObject({ slot: "ODD", answer: "3" });
  });

  test("falls back to the largest table", () => {
    expect(worstSlot(card(facts))).toBe("WHERE");
    expect(reviewQuestion(facts, card(facts))).toMatchObject({
      text: "How many rows of backends change?",
      answer: "1240",
    });
    expect(reviewQuestion({ ...facts, tables: [] }, card(facts)).answer).toBe("0");
  });
});
