import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { digestOf } from "../../src/base/digest.js";
import {
  checkEntry,
  EMPTY_DIGEST,
  entryBytes,
  parseEntry,
  sealEntry,
  type StoredEntry,
  verifyChain,
} from "../../src/ledger/chain.js";
import type { Anchor, Entry } from "../../src/ledger/entry.js";

const LEDGER = "lg_0123456789abcdef";

function chain(length: number, ledger = LEDGER): Entry[] {
  const entries: Entry[] = [];
  let previous = EMPTY_DIGEST;
  for (let sequence = 0; sequence < length; sequence++) {
    const entry: Entry = {
      format: "holdpoint-ledger/1",
      ledger,
      sequence,
      at: "2026-11-24T14:38:44Z",
      kind: sequence === 0 ? "ledger-created" : "planned",
      target: "elb-prod",
      plan: sequence === 0 ? null : `pl_${sequence}`,
      run: null,
      facts: { rows: sequence },
      previous,
    };
    entries.push(entry);
    previous = sealEntry(entry).digest;
  }
  return entries;
}

function stored(entries: readonly Entry[]): StoredEntry[] {
  return entries.map((e) => ({ bytes: entryBytes(e), digest: sealEntry(e).digest }));
}

function anchor(entries: readonly Entry[], sequence: number): Anchor {
  const entry = entries[sequence];
  if (entry === undefined) throw new Error("no such entry");
  return { ledger: entry.ledger, sequence, head: sealEntry(entry).digest, where: "a target" };
}

/** Chains them anew from `from` on, as somebody who rewrites history would. */
function rechained(entries: readonly Entry[], from: number): Entry[] {
  const out = entries.slice(0, from);
  for (const [i, e] of entries.slice(from).entries()) {
    const last = out.at(-1);
    out.push({
      ...e,
      sequence: from + i,
      previous: last === undefined ? EMPTY_DIGEST : sealEntry(last).digest,
    });
  }
  return out;
}

describe("a chain", () => {
  const entries = chain(200);

  test("that is whole holds, with its anchors, and names its head", () => {
    const head = anchor(entries, 199).head;
    expect(verifyChain(stored(entries), LEDGER, [anchor(entries, 0), anchor(entries, 120)])).toEqual({
      ok: true,
      entries: 200,
      head,
    });
  });

  test.each<[string, (e: Entry[]) => Entry[], number]>([
    ["an entry edited in place", (e) => e.map((x, i) => (i === 57 ? { ...x, facts: { rows: 1 } } : x)), 58],
    ["an entry dropped in the middle", (e) => e.filter((_, i) => i !== 57), 57],
    ["the first entry dropped", (e) => e.slice(1), 0],
    ["two neighbours swapped", (e) => swap(e, 57, 58), 57],
    ["two distant entries swapped", (e) => swap(e, 20, 150), 20],
    [
      "an entry inserted",
      (e) => e.flatMap((x, i) => (i === 57 ? [{ ...x, facts: { rows: 9 } }, x] : [x])),
      58,
    ],
    [
      "an entry of another ledger in its place",
      (e) => e.map((x, i) => (i === 57 ? { ...x, ledger: "lg_ffffffffffffffff" } : x)),
      57,
    ],
    [
      "a second beginning",
      (e) =>
        rechained(
          e.map((x, i) => (i === 57 ? { ...x, kind: "ledger-created" } : x)),
          57,
        ),
      57,
    ],
    [
      "another kind of first entry",
      (e) =>
        rechained(
          e.map((x, i) => (i === 0 ? { ...x, kind: "planned" } : x)),
          0,
        ),
      0,
    ],
  ])("with %s does not hold, and says from where", (_name, attack, firstBad) => {
    expect(verifyChain(stored(attack([...entries])), LEDGER, [])).toMatchObject({
      ok: false,
      firstBad,
      entries: firstBad,
    });
  });

  test("with its tail dropped holds by itself, and not against an anchor beyond it", () => {
    const cut = stored(entries.slice(0, 199));
    expect(verifyChain(cut, LEDGER, []).ok).toBe(true);
    expect(verifyChain(cut, LEDGER, [anchor(entries, 199)])).toMatchObject({ ok: false, firstBad: 199 });
  });

  test("rewritten from some entry on holds by itself, and not against an anchor after it", () => {
    const edited = entries.map((x, i) => (i === 57 ? { ...x, facts: { rows: 1 } } : x));
    const rewritten = stored(rechained(edited, 57));
    expect(verifyChain(rewritten, LEDGER, []).ok).toBe(true);
    expect(verifyChain(rewritten, LEDGER, [anchor(entries, 56)]).ok).toBe(true);
    expect(verifyChain(rewritten, LEDGER, [anchor(entries, 100)])).toMatchObject({
      ok: false,
      firstBad: 100,
    });
  });

  test("replaced as a whole is another ledger", () => {
    const other = chain(200, "lg_zzzzzzzzzzzzzzzz");
    expect(verifyChain(stored(other), null, []).ok).toBe(true);
    expect(verifyChain(stored(other), null, [anchor(entries, 3)])).toMatchObject({ ok: false, firstBad: 3 });
    expect(verifyChain(stored(other), LEDGER, [])).toMatchObject({ ok: false, firstBad: 0 });
  });

  test("that is empty is not a history, with or without anchors", () => {
    expect(verifyChain([], LEDGER, [])).toMatchObject({ ok: false, entries: 0, firstBad: 0 });
    expect(verifyChain([], null, [anchor(entries, 0)])).toMatchObject({ ok: false, firstBad: 0 });
  });

  test("does not mind a clock that went back", () => {
    const back = rechained(
      entries.map((x, i) => (i === 57 ? { ...x, at: "2020-01-01T00:00:00Z" } : x)),
      57,
    );
    expect(verifyChain(stored(back), LEDGER, []).ok).toBe(true);
  });

  test("finds a look-up column that says something else than the entry", () => {
    const [first] = stored(entries);
    if (first === undefined) throw new Error("empty");
    const columns = { sequence: 0, kind: "ledger-created", target: "elb-prod", plan: null, run: null };
    const place = { ledger: LEDGER, sequence: 0, previous: EMPTY_DIGEST };
    expect(checkEntry({ ...first, columns }, place).ok).toBe(true);
    for (const column of Object.keys(columns)) {
      expect(checkEntry({ ...first, columns: { ...columns, [column]: "other" } }, place).ok).toBe(false);
    }
  });
});

describe("an entry's bytes", () => {
  const facts = fc.dictionary(
    fc.string({ unit: "grapheme" }).filter((k) => k !== "__proto__"),
    fc.oneof(fc.maxSafeInteger(), fc.string({ unit: "grapheme" }), fc.boolean(), fc.constant(null)),
  );
  const anyEntry: fc.Arbitrary<Entry> = fc.record({
    format: fc.constant("holdpoint-ledger/1" as const),
    ledger: fc.constant(LEDGER),
    sequence: fc.nat(),
    at: fc.constant("2026-11-24T14:38:44Z"),
    kind: fc.constantFrom("planned" as const, "approved" as const, "run-finished" as const),
    target: fc.option(fc.string({ unit: "grapheme" })),
    plan: fc.option(fc.string({ unit: "grapheme" })),
    run: fc.option(fc.string({ unit: "grapheme" })),
    facts,
    previous: fc.string().map((s) => digestOf(s)),
  });

  test("law: parseEntry(entryBytes(e)) equals e", () => {
    fc.assert(
      fc.property(anyEntry, (e) => expect(parseEntry(entryBytes(e))).toEqual({ ok: true, entry: e })),
    );
  });

  test("law: an altered byte is another digest, and never the same entry", () => {
    fc.assert(
      fc.property(anyEntry, fc.nat(), fc.integer({ min: 1, max: 255 }), (e, at, flip) => {
        const bytes = Buffer.from(entryBytes(e));
        const i = at % bytes.length;
        bytes[i] = (bytes[i] ?? 0) ^ flip;
        expect(digestOf(bytes)).not.toBe(sealEntry(e).digest);
        const parsed = parseEntry(bytes);
        if (parsed.ok) expect(parsed.entry).not.toEqual(e);
      }),
    );
  });

  test("law: bytes that are no entry are refused, never thrown at", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => expect(parseEntry(bytes).ok).toBe(false)),
    );
  });

  test.each([
    ["a field too many", (t: string) => t.replace('"at":', '"as":1,"at":')],
    ["a field missing", (t: string) => t.replace('"run":null,', "")],
    ["an unknown kind", (t: string) => t.replace('"planned"', '"forgotten"')],
    ["another format", (t: string) => t.replace("ledger/1", "ledger/2")],
    ["a space", (t: string) => t.replace(":", ": ")],
    ["a negative sequence", (t: string) => t.replace('"sequence":1', '"sequence":-1')],
    ["a time with a fraction", (t: string) => t.replace("44Z", "44.1Z")],
    ["more bytes than an entry has", (t: string) => t.replace('"rows":1', `"rows":"${"x".repeat(70_000)}"`)],
  ])("with %s are no entry", (_name, edit) => {
    const [, entry] = chain(2);
    if (entry === undefined) throw new Error("empty");
    const text = Buffer.from(entryBytes(entry)).toString("utf8");
    expect(parseEntry(Buffer.from(text)).ok).toBe(true);
    expect(edit(text)).not.toBe(text);
    expect(parseEntry(Buffer.from(edit(text))).ok).toBe(false);
  });
});

function swap(entries: readonly Entry[], a: number, b: number): Entry[] {
  return entries.map((e, i) => entries[i === a ? b : i === b ? a : i] ?? e);
}
