/**
 * Random and mutated inputs never crash and never pass. Signed things are tried 100,000 times; `FUZZ_RUNS` sets the number
 * of runs of each property.
 */
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { parseAllowedSigners } from "../../src/approval/allowed-signers.js";
import type { ApprovalStatement, Token } from "../../src/approval/approval-statement.js";
import { makeBundle } from "../../src/approval/bundle.js";
import { countApprovals } from "../../src/approval/count.js";
import { assign } from "../../src/approval/matching.js";
import { people } from "../../src/approval/people.js";
import { parsePlanStatement, planStatementBytes } from "../../src/approval/plan-statement-codec.js";
import { parsePublicKey } from "../../src/approval/public-key.js";
import type { Person, Slot } from "../../src/approval/requirement.js";
import { dearmor, verifySshsig } from "../../src/approval/sshsig.js";
import { approvalBytes, parseApproval, parseToken, splitTokens } from "../../src/approval/token.js";
import { canonical } from "../../src/base/canonical.js";
import { toJson } from "../../src/base/decode.js";
import { HoldpointError } from "../../src/base/errors.js";
import { NOW, person, PLAN, statement, testKey, token } from "../support/approvals.js";
import { planStatement } from "../support/plan-statement.js";

const RUNS = Number(process.env["FUZZ_RUNS"] ?? 5_000);
/** Of each kind of what is signed: a mutation that passed would be a forgery. */
const FORGERIES = Number(process.env["FUZZ_RUNS"] ?? 20_000);
/** Laws over generated values cost more than they find. */
const LAWS = Math.min(RUNS, 2_000);
const RAVI = testKey();
const GOOD = token(RAVI, statement("ravi"));
const NAMESPACE = "holdpoint-approval";

/** Runs a parser on hostile input: it gives a value or one of our own errors, never anything else. */
function tried<T>(work: () => T): T | HoldpointError {
  try {
    return work();
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL") return e;
    throw e;
  }
}

/** The given bytes with some of them overwritten, dropped, doubled or inserted; never the same bytes. */
function mutated(original: Uint8Array): fc.Arbitrary<Uint8Array> {
  const at = fc.nat({ max: original.length - 1 });
  const edit = fc.oneof(
    fc.tuple(at, fc.integer({ min: 1, max: 255 })).map(([i, x]) => (b: Buffer) => {
      const copy = Buffer.from(b);
      if (i < copy.length) copy[i] = (copy[i] ?? 0) ^ x;
      return copy;
    }),
    fc.tuple(at, at).map(
      ([a, z]) =>
        (b: Buffer) =>
          Buffer.concat([b.subarray(0, a), b.subarray(z)]),
    ),
    fc.tuple(at, fc.uint8Array({ minLength: 1, maxLength: 9 })).map(
      ([i, x]) =>
        (b: Buffer) =>
          Buffer.concat([b.subarray(0, i), x, b.subarray(i)]),
    ),
  );
  return fc
    .array(edit, { minLength: 1, maxLength: 4 })
    .map((edits) => edits.reduce<Buffer>((b, e) => e(b), Buffer.from(original)))
    .filter((b) => !b.equals(Buffer.from(original)));
}

function counts(tokens: readonly Token[]): boolean {
  return countApprovals({
    requirement: {
      slots: [{ people: 1, groups: [], rule: "r" }],
      touch: false,
      reviewedInTool: false,
      reason: false,
    },
    plan: PLAN,
    tokens,
    people: [person("ravi", [RAVI])],
    requesters: [],
    requesterKeys: [],
    now: NOW,
    spentNonces: new Set(),
    revokedNonces: new Set(),
    rejectedBy: null,
    environment: "production",
  }).satisfied;
}

describe("mutated inputs never pass", () => {
  test("tokens", () => {
    expect(counts([GOOD])).toBe(true);
    fc.assert(
      fc.property(mutated(Buffer.from(GOOD.text, "latin1")), (bytes) => {
        const text = Buffer.from(bytes).toString("latin1");
        // White space may be put in anywhere: that is the same token.
        fc.pre(text.replace(/[ \t\r\n]/g, "") !== GOOD.text);
        const parsed = tried(() => parseToken(text));
        return parsed instanceof HoldpointError || !counts([parsed]);
      }),
      { numRuns: FORGERIES },
    );
  });

  test("statements under a good signature", () => {
    fc.assert(
      fc.property(mutated(GOOD.bytes), (bytes) => !counts([{ ...GOOD, bytes }])),
      { numRuns: FORGERIES },
    );
  });

  test("signatures over a good statement", () => {
    fc.assert(
      fc.property(mutated(GOOD.signature), (signature) => !counts([{ ...GOOD, signature }])),
      { numRuns: FORGERIES },
    );
  });

  test("plan statements: refused, or other bytes that come back exactly", () => {
    const bytes = planStatementBytes(planStatement());
    fc.assert(
      fc.property(mutated(bytes), (altered) => {
        const parsed = tried(() => parsePlanStatement(altered));
        return (
          parsed instanceof HoldpointError ||
          Buffer.from(planStatementBytes(parsed)).equals(Buffer.from(altered))
        );
      }),
      { numRuns: FORGERIES },
    );
  });

  test("allowed-signers lines: refused, or a list that shows the change", () => {
    const line = `ravi valid-before="20300101Z",namespaces="${NAMESPACE}" ${RAVI.line}`;
    const bundleOf = (text: string): string =>
      canonical(
        toJson(
          makeBundle({ people: people(parseAllowedSigners(text, "f"), {}), policies: [], guarding: null }),
        ),
      );
    const pinned = bundleOf(line);
    fc.assert(
      fc.property(mutated(Buffer.from(line, "latin1")), (bytes) => {
        const text = Buffer.from(bytes).toString("latin1");
        const bundle = tried(() => bundleOf(text));
        if (bundle instanceof HoldpointError || bundle !== pinned) return;
        // The same people and keys: only white space, a comment or another spelling of the same time may differ.
        expect(parseAllowedSigners(text, "f").people[0]?.keys[0]?.fingerprint).toBe(RAVI.fingerprint);
      }),
      { numRuns: FORGERIES },
    );
  });
});

describe("random inputs never crash", () => {
  const parsers: readonly (readonly [string, (bytes: Uint8Array, text: string) => unknown])[] = [
    ["parseToken", (_, text) => parseToken(text)],
    ["splitTokens", (_, text) => splitTokens(text)],
    ["parseApproval", (bytes) => parseApproval(bytes)],
    ["verifySshsig", (bytes) => verifySshsig({ bytes, signature: bytes, namespace: NAMESPACE })],
    ["dearmor", (_, text) => dearmor(text)],
    ["parsePlanStatement", (bytes) => parsePlanStatement(bytes)],
    ["parseAllowedSigners", (_, text) => parseAllowedSigners(text, "f")],
    ["parsePublicKey", (_, text) => parsePublicKey(text)],
  ];

  test.each(parsers)("%s on bytes", (_, parse) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        tried(() => parse(bytes, Buffer.from(bytes).toString("latin1")));
      }),
      { numRuns: RUNS },
    );
  });

  test.each(parsers)("%s on any text", (_, parse) => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 300 }), (text) => {
        tried(() => parse(Buffer.from(text, "utf8"), text));
      }),
      { numRuns: RUNS },
    );
  });
});

describe("laws", () => {
  const line = fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 40 })
    .filter((s) => s === s.trim() && s !== "" && !/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]/u.test(s));
  const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const approvals: fc.Arbitrary<ApprovalStatement> = fc
    .record({
      target: line,
      environment: line,
      identity: line,
      approver: line,
      reason: line,
      inserts: count,
      deletes: count,
    })
    .map((change) => statement("ravi", change));

  test("parseApproval(approvalBytes(s)) equals s", () => {
    fc.assert(
      fc.property(approvals, (s) => expect(parseApproval(approvalBytes(s))).toEqual(s)),
      { numRuns: LAWS },
    );
  });

  test("assign fills as many places as any assignment could", () => {
    const group = fc.constantFrom("a", "b", "c");
    const persons: fc.Arbitrary<readonly Person[]> = fc
      .array(fc.uniqueArray(group), { maxLength: 4 })
      .map((all) => all.map((groups, i) => person(`p${i}`, [], groups)));
    const slots: fc.Arbitrary<readonly Slot[]> = fc.array(
      fc.record({
        people: fc.integer({ min: 1, max: 2 }),
        groups: fc.uniqueArray(group),
        rule: fc.constant("r"),
      }),
      { maxLength: 3 },
    );
    fc.assert(
      fc.property(persons, slots, (all, wanted) => {
        const filled = assign(all, wanted);
        expect(new Set(filled.map((f) => f.person)).size).toBe(filled.length);
        expect(filled.length).toBe(
          mostPlaces(
            all,
            wanted.map((s) => s.people),
            wanted,
          ),
        );
      }),
      { numRuns: Math.min(LAWS, 1_000) },
    );
  });

  /** By trying everything. */
  function mostPlaces(all: readonly Person[], free: readonly number[], slots: readonly Slot[]): number {
    const [first, ...rest] = all;
    if (first === undefined) return 0;
    const choices = slots.map((s, i) => {
      const fits = s.groups.length === 0 || s.groups.some((g) => first.groups.includes(g));
      if (!fits || (free[i] ?? 0) === 0) return 0;
      return 1 + mostPlaces(rest, free.with(i, (free[i] ?? 0) - 1), slots);
    });
    return Math.max(mostPlaces(rest, free, slots), ...choices);
  }
});
