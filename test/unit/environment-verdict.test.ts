/** The verdict against an oracle that is written from the words of the table, over every combination of evidence. */
import { describe, expect, test } from "@jest/globals";
import type { Environment, Evidence } from "../../src/environment/evidence.js";
import { judge, type JudgeInput, moreDangerous } from "../../src/environment/verdict.js";

const ENVIRONMENTS = ["production", "staging", "development"] as const;
const IDENTITY = "sqlite:8f1c";
const PLACE = { path: "/srv/shop.db", inode: "42" };

const PINS = {
  "no identity configured": null,
  "the same identity": IDENTITY,
  "another identity": "sqlite:0000",
} as const;
const MARKERS = ["none", ...ENVIRONMENTS] as const;
const NAMES = { "its name": "shop", "another name": "shop-old" } as const;
const PLACES = {
  "nothing recorded": { recorded: {}, now: PLACE },
  "same place": { recorded: PLACE, now: PLACE },
  "more told now than recorded": { recorded: { path: PLACE.path }, now: PLACE },
  "another inode": { recorded: PLACE, now: { ...PLACE, inode: "43" } },
  "another path": { recorded: PLACE, now: { ...PLACE, path: "/tmp/copy.db" } },
  "inode cannot be read": { recorded: PLACE, now: { path: PLACE.path } },
} as const;

const signal = (
  strength: Evidence["strength"],
  state: Evidence["state"],
  says: Environment | null,
): Evidence => ({
  source: "role",
  side: "target",
  strength,
  state,
  says,
  detail: "a signal",
});

/** What each signal must lead to, given the marker's environment (null without a marker). */
const SIGNALS: Readonly<
  Record<
    string,
    {
      readonly of: readonly Evidence[];
      readonly means: (marked: Environment | null) => "nothing" | "doubt" | "contradiction";
    }
  >
> = {
  "no signal": { of: [], means: () => "nothing" },
  "strong informs": { of: [signal("strong", "informs", null)], means: () => "nothing" },
  "strong says production": {
    of: [signal("strong", "agrees", "production")],
    means: (m) => (m === null || m === "production" ? "nothing" : "contradiction"),
  },
  "strong says staging": {
    of: [signal("strong", "informs", "staging")],
    means: (m) => (m === null || m === "staging" ? "nothing" : "contradiction"),
  },
  "two strong disagree": {
    of: [signal("strong", "agrees", "production"), signal("strong", "agrees", "staging")],
    means: () => "contradiction",
  },
  "strong contradicts": { of: [signal("strong", "contradicts", null)], means: () => "contradiction" },
  "strong absent": { of: [signal("strong", "absent", null)], means: () => "doubt" },
  "medium contradicts": { of: [signal("medium", "contradicts", null)], means: () => "doubt" },
  "medium says development": {
    of: [signal("medium", "informs", "development")],
    means: (m) => (m === null || m === "development" ? "nothing" : "doubt"),
  },
  "medium absent": { of: [signal("medium", "absent", null)], means: () => "nothing" },
  "none contradicts": { of: [signal("none", "contradicts", "development")], means: () => "nothing" },
  "machine, labelled strong": {
    of: [{ ...signal("strong", "contradicts", "development"), side: "machine" }],
    means: () => "nothing",
  },
};

type Case = {
  readonly claim: Environment;
  readonly pin: keyof typeof PINS;
  readonly marker: (typeof MARKERS)[number];
  readonly name: keyof typeof NAMES;
  readonly place: keyof typeof PLACES;
  readonly signal: string;
};

const CASES: Case[] = [];
for (const claim of ENVIRONMENTS)
  for (const pin of Object.keys(PINS) as (keyof typeof PINS)[])
    for (const marker of MARKERS)
      for (const name of Object.keys(NAMES) as (keyof typeof NAMES)[])
        for (const place of Object.keys(PLACES) as (keyof typeof PLACES)[])
          for (const signal of Object.keys(SIGNALS)) CASES.push({ claim, pin, marker, name, place, signal });

function inputOf(c: Case, machine: readonly Evidence[] = []): JudgeInput {
  return {
    claim: c.claim,
    pinnedIdentity: PINS[c.pin],
    targetName: "shop",
    marker:
      c.marker === "none"
        ? null
        : { identity: IDENTITY, name: NAMES[c.name], environment: c.marker, place: PLACES[c.place].recorded },
    place: PLACES[c.place].now,
    signals: SIGNALS[c.signal]?.of ?? [],
    machine,
  };
}

/** The table in words: contradictions first, then doubts, then the higher of marker and claim. */
function oracle(c: Case): string {
  const marked = c.marker === "none" ? null : c.marker;
  const means = SIGNALS[c.signal]?.means(marked) ?? "nothing";
  const contradicted = [
    marked === null && c.pin !== "no identity configured",
    marked !== null && c.pin === "another identity",
    marked !== null && c.name === "another name",
    marked !== null && (c.place === "another inode" || c.place === "another path"),
    means === "contradiction",
  ];
  if (contradicted.includes(true)) return "unproven, guarded as production, contradicted";
  const doubtful = [
    marked === null,
    c.pin === "no identity configured",
    c.place === "nothing recorded" || c.place === "inode cannot be read",
    means === "doubt",
  ];
  if (marked === null || doubtful.includes(true)) return "unproven, guarded as production";
  const order: readonly string[] = ["development", "staging", "production"];
  const answer = order[Math.max(order.indexOf(marked), order.indexOf(c.claim))] ?? "";
  return `${answer}, guarded as ${answer}`;
}

function answerTo(input: JudgeInput): string {
  const v = judge(input);
  return `${v.name}, guarded as ${v.guardedAs}${v.contradicted ? ", contradicted" : ""}`;
}

describe("the table of verdicts", () => {
  test(`all ${CASES.length} combinations of evidence answer as the table says`, () => {
    const wrong = CASES.filter((c) => answerTo(inputOf(c)) !== oracle(c)).map((c) => ({
      ...c,
      got: answerTo(inputOf(c)),
    }));
    expect(wrong).toEqual([]);
    expect(new Set(CASES.map(oracle)).size).toBe(5);
  });

  test("what this machine says changes nothing but the evidence shown", () => {
    const machine = [{ ...signal("strong", "contradicts", "development" as const), source: "NODE_ENV" }];
    const wrong = CASES.filter((c) => {
      const [without, with_] = [judge(inputOf(c)), judge(inputOf(c, machine))];
      const shown = with_.evidence.at(-1);
      return (
        without.name !== with_.name ||
        without.contradicted !== with_.contradicted ||
        JSON.stringify(without.because) !== JSON.stringify(with_.because) ||
        shown?.side !== "machine" ||
        shown.strength !== "none"
      );
    });
    expect(wrong).toEqual([]);
  });

  test("raising the claim never makes the verdict less guarded, and the marker is never undercut", () => {
    for (const c of CASES.filter((x) => x.claim === "development")) {
      const [low, high] = [judge(inputOf(c)), judge(inputOf({ ...c, claim: "production" }))];
      expect(moreDangerous(high.guardedAs, low.guardedAs)).toBe(high.guardedAs);
      if (low.name !== "unproven" && c.marker !== "none")
        expect(moreDangerous(low.name, c.marker)).toBe(low.name);
    }
  });
});

describe("the words of a verdict", () => {
  const base: Case = {
    claim: "production",
    pin: "the same identity",
    marker: "production",
    name: "its name",
    place: "same place",
    signal: "no signal",
  };

  test.each([
    ["a renamed target", { name: "another name" }, "marker: expected shop, found shop-old"],
    ["a swapped database", { pin: "another identity" }, "identity: expected sqlite:0000, found sqlite:8f1c"],
    ["a copy elsewhere", { place: "another path" }, "path: expected /srv/shop.db, found /tmp/copy.db"],
    ["a restored file under the same name", { place: "another inode" }, "inode: expected 42, found 43"],
    [
      "a replaced database without a marker",
      { marker: "none" },
      "marker: expected sqlite:8f1c, found no marker",
    ],
  ] as const)("%s is caught with both values", (_, change, words) => {
    const verdict = judge(inputOf({ ...base, ...change }));
    expect(verdict.contradicted).toBe(true);
    expect(verdict.because).toEqual([words]);
    const [against] = verdict.evidence.filter((e) => e.state === "contradicts");
    expect([against?.expected, against?.found].every((v) => v !== undefined)).toBe(true);
  });

  test("a claim lower than the marker is noted and lowers nothing", () => {
    const verdict = judge(inputOf({ ...base, claim: "development" }));
    expect(verdict.name).toBe("production");
    expect(verdict.because).toEqual([
      "the marker in the target says production",
      "holdpoint.yaml says development, which lowers nothing: production stands",
    ]);
  });

  test("a claim higher than the marker raises it", () => {
    const verdict = judge(inputOf({ ...base, marker: "staging" }));
    expect([verdict.name, verdict.guardedAs]).toEqual(["production", "production"]);
    expect(verdict.because).toEqual([
      "the marker in the target says staging",
      "holdpoint.yaml raises it to production",
    ]);
  });

  test("a target that was never pinned says so", () => {
    const verdict = judge(inputOf({ ...base, pin: "no identity configured", marker: "none" }));
    expect(verdict.because).toEqual(["marker: none: this target was never pinned"]);
  });

  test("a place recorded under a name of Object.prototype is looked up in the data alone", () => {
    const input = inputOf(base);
    const verdict = judge({
      ...input,
      marker: input.marker && { ...input.marker, place: { toString: "x" } },
    });
    expect([verdict.name, verdict.contradicted]).toEqual(["unproven", false]);
  });
});
