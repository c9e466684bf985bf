/** Signs of life: what is read of a target, and what follows from it. */
import { describe, expect, test } from "@jest/globals";
import type { Value } from "../../src/changeset/value.js";
import { judge } from "../../src/environment/verdict.js";
import {
  liveEvidence,
  timeOfValue,
  type Newest,
  type PinnedVitals,
  type Vitals,
} from "../../src/target/vitals.js";

const NOW = new Date("2026-11-22T12:00:00Z");
const PINNED: PinnedVitals = {
  sizeBytes: 400_000_000,
  history: { timeline: "1" },
  at: "2026-11-01T00:00:00Z",
};
const VITALS: Vitals = {
  sizeBytes: 400_000_000,
  newest: [],
  history: { timeline: "1" },
  copies: { kind: "undecidable", by: "a copy keeps the system identifier" },
  signals: [],
};

function evidenceOf(
  change: Partial<Vitals>,
  pinned: PinnedVitals | null = PINNED,
  withinSeconds: number | null = 900,
) {
  const newest = [{ table: "orders", column: "created_at", withinSeconds }];
  return liveEvidence({
    vitals: { ...VITALS, ...change },
    newest: change.newest ? newest : [],
    pinned,
    now: NOW,
  });
}

const newest = (value: Value): { readonly newest: readonly Newest[] } => ({
  newest: [{ kind: "value", value }],
});

describe("the table of signs", () => {
  test.each<
    readonly [string, Partial<Vitals>, PinnedVitals | null, string, string, string, string | undefined]
  >([
    [
      "a row of a minute ago",
      newest("2026-11-22T11:59:00Z"),
      PINNED,
      "newest row of orders",
      "medium",
      "agrees",
      undefined,
    ],
    [
      "a row exactly as old as allowed",
      newest("2026-11-22T11:45:00Z"),
      PINNED,
      "newest row of orders",
      "medium",
      "agrees",
      undefined,
    ],
    [
      "a row a second older",
      newest("2026-11-22T11:44:59Z"),
      PINNED,
      "newest row of orders",
      "medium",
      "contradicts",
      "15 min old",
    ],
    [
      "a row of three days ago",
      newest("2026-11-19 12:00:00"),
      PINNED,
      "newest row of orders",
      "medium",
      "contradicts",
      "3 d old",
    ],
    [
      "a row of tomorrow",
      newest("2026-11-23"),
      PINNED,
      "newest row of orders",
      "medium",
      "agrees",
      undefined,
    ],
    ["an empty table", newest(null), PINNED, "newest row of orders", "medium", "absent", undefined],
    [
      "a column that holds no time",
      newest("soon"),
      PINNED,
      "newest row of orders",
      "medium",
      "absent",
      undefined,
    ],
    [
      "a column that was not read",
      { newest: [{ kind: "not-read", why: "no index" }] },
      PINNED,
      "newest row of orders",
      "medium",
      "absent",
      undefined,
    ],
    [
      "a tenth of its size",
      { sizeBytes: 40_000_000 },
      PINNED,
      "size since the pin",
      "medium",
      "agrees",
      undefined,
    ],
    [
      "less than a tenth",
      { sizeBytes: 39_999_999 },
      PINNED,
      "size since the pin",
      "medium",
      "contradicts",
      "40.0 MB",
    ],
    [
      "a small database that shrank",
      { sizeBytes: 1 },
      { ...PINNED, sizeBytes: 999_999 },
      "size since the pin",
      "medium",
      "agrees",
      undefined,
    ],
    ["the timeline of the pin", {}, PINNED, "timeline since the pin", "medium", "agrees", undefined],
    [
      "a timeline after a promotion",
      { history: { timeline: "2" } },
      PINNED,
      "timeline since the pin",
      "medium",
      "contradicts",
      "2",
    ],
    [
      "a timeline that was not noted",
      {},
      { ...PINNED, history: {} },
      "timeline since the pin",
      "none",
      "informs",
      undefined,
    ],
    ["a timeline without a pin", {}, null, "timeline since the pin", "none", "informs", undefined],
  ])("%s", (_name, vitals, pinned, source, strength, state, found) => {
    const signal = evidenceOf(vitals, pinned).find((e) => e.source === source);
    expect([signal?.side, signal?.strength, signal?.state, signal?.found]).toEqual([
      "target",
      strength,
      state,
      found,
    ]);
    expect(signal?.says).toBeNull();
  });

  test("without a bound the age is told and says nothing", () => {
    const [signal] = evidenceOf(newest("2026-11-22T09:00:00Z"), PINNED, null);
    expect([signal?.strength, signal?.state, signal?.detail]).toEqual([
      "none",
      "informs",
      "3 h old by orders.created_at",
    ]);
  });

  test("without a pin nothing is said of the size", () => {
    expect(evidenceOf({}, null).map((e) => e.source)).toEqual(["timeline since the pin", "physical copy"]);
  });

  test.each([
    ["told", "told apart by inode"],
    ["undecidable", "cannot be told apart from here: inode"],
  ] as const)("a physical copy: %s", (kind, words) => {
    const found = evidenceOf({ copies: { kind, by: "inode" } }).find((e) => e.source === "physical copy");
    expect([found?.strength, found?.detail]).toEqual(["none", words]);
  });
});

test("a restored copy under production's name is unproven, with both values", () => {
  const marker = {
    identity: "postgres:1",
    name: "shop",
    environment: "production" as const,
    place: { system: "7261" },
  };
  const verdict = judge({
    claim: "production",
    pinnedIdentity: "postgres:1",
    targetName: "shop",
    marker,
    place: { system: "7261" },
    signals: evidenceOf({ ...newest("2026-11-19T12:00:00Z"), history: { timeline: "2" } }),
    machine: [],
  });
  expect([verdict.name, verdict.guardedAs, verdict.contradicted]).toEqual(["unproven", "production", false]);
  expect(verdict.because).toEqual([
    "newest row of orders: expected at most 15 min old, found 3 d old",
    "timeline since the pin: expected 1, found 2",
  ]);
});

describe("what a cell of a time column means", () => {
  test.each<readonly [Value, string | null]>([
    ["2026-11-22T11:00:00Z", "2026-11-22T11:00:00.000Z"],
    ["2026-11-22 11:00:00", "2026-11-22T11:00:00.000Z"],
    ["2026-11-22 11:00", "2026-11-22T11:00:00.000Z"],
    ["2026-11-22 11:00:00.123456+00", "2026-11-22T11:00:00.123Z"],
    ["2026-11-22 13:30:00+02:30", "2026-11-22T11:00:00.000Z"],
    ["2026-11-22 13:30:00+0230", "2026-11-22T11:00:00.000Z"],
    ["2026-11-22", "2026-11-22T00:00:00.000Z"],
    [1_795_345_200n, "2026-11-22T11:00:00.000Z"],
    [1_795_345_200_000n, "2026-11-22T11:00:00.000Z"],
    [1_795_345_200_000_000n, "2026-11-22T11:00:00.000Z"],
    [1_795_345_200.5, "2026-11-22T11:00:00.500Z"],
    ["2026-13-22", null],
    ["22/11/2026", null],
    ["", null],
    [0n, null],
    [-5n, null],
    [Number.NaN, null],
    [null, null],
    [new Uint8Array([1]), null],
  ])("%p", (value, at) => {
    const found = timeOfValue(value);
    expect(found === null ? null : new Date(found).toISOString()).toBe(at);
  });
});
