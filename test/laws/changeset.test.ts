import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { digestOf } from "../../src/base/digest.js";
import { codeOf } from "../../src/base/errors.js";
import { applyTo, sameState } from "../../src/changeset/apply.js";
import { BlockPacker, packBlocks, unpackBlocks } from "../../src/changeset/blocks.js";
import { afterOf, beforeOf, type Change, type ChangeSet } from "../../src/changeset/change.js";
import { compose } from "../../src/changeset/compose.js";
import { diff } from "../../src/changeset/diff.js";
import {
  decodeChangeSet,
  decodeStream,
  digestOfSource,
  encodeStream,
  StreamInProgress,
} from "../../src/changeset/encode.js";
import { invert, invertChange, invertSource } from "../../src/changeset/invert.js";
import { compareKeys, keyBytes } from "../../src/changeset/key.js";
import { mergeRow, takeBack } from "../../src/changeset/merge.js";
import { changeSet, collect, countsOf, sourceOf } from "../../src/changeset/source.js";
import { summarise } from "../../src/changeset/summarise.js";
import { sameRow, sameValue } from "../../src/changeset/value.js";
import {
  changeSetArbitrary,
  HOSTILE_VALUES,
  LAW_RUNS,
  statesArbitrary,
  stepArbitrary,
  valueArbitrary,
} from "../support/changeset-arbitrary.js";

const runs = { numRuns: LAW_RUNS };
const fewRuns = { numRuns: Math.ceil(LAW_RUNS / 8) };

const bytesOf = (chunks: Iterable<Uint8Array>): Buffer => Buffer.concat([...chunks]);
const encoded = (cs: ChangeSet): Buffer => bytesOf(encodeStream(sourceOf(cs)));
const hexOf = (cs: ChangeSet): string => encoded(cs).toString("hex");

/** What a ChangeSet does to rows, without where it comes from. */
function effectOf(cs: ChangeSet): string {
  const changes = cs.changes.map((c): Change => {
    const { link: _link, ...rest } = c;
    return { ...rest, origin: "unknown" };
  });
  return hexOf(changeSet(cs.tables, changes));
}

/** The code of the error that `act` throws; "accepted" when it does not. */
function refusalOf(act: () => unknown): string {
  try {
    act();
    return "accepted";
  } catch (e) {
    return codeOf(e) ?? "no code";
  }
}

describe("keys", () => {
  const keys = fc.array(valueArbitrary, { minLength: 1, maxLength: 3 });

  test("bytes have the order of compareKeys, and are equal only for equal keys", () => {
    fc.assert(
      fc.property(keys, keys, (a, b) => {
        const order = Buffer.compare(keyBytes(a), keyBytes(b));
        expect(Math.sign(compareKeys(a, b))).toBe(order);
        expect(order === 0).toBe(a.length === b.length && a.every((v, i) => sameValue(v, b[i] ?? null)));
      }),
      { numRuns: LAW_RUNS * 5 },
    );
  });

  test("every pair of hostile values is told apart, in one order", () => {
    for (const [i, a] of HOSTILE_VALUES.entries()) {
      for (const [j, b] of HOSTILE_VALUES.entries()) {
        const order = Buffer.compare(keyBytes([a]), keyBytes([b]));
        expect([i, j, order === 0]).toEqual([i, j, i === j]);
        expect([i, j, Math.sign(compareKeys([a], [b]))]).toEqual([i, j, order]);
      }
    }
  });

  test("no key of one width is the beginning of another", () => {
    fc.assert(
      fc.property(valueArbitrary, valueArbitrary, (a, b) => {
        fc.pre(!sameValue(a, b));
        const [left, right] = [Buffer.from(keyBytes([a])), Buffer.from(keyBytes([b]))];
        expect(right.subarray(0, left.length).equals(left)).toBe(false);
      }),
      runs,
    );
  });
});

describe("the algebra", () => {
  test("diff, then apply, gives the other state", () => {
    fc.assert(
      fc.property(statesArbitrary(2), ([before = new Map(), now = new Map()]) => {
        expect(sameState(applyTo(before, diff(before, now)), now)).toBe(true);
        expect(diff(before, before).changes).toEqual([]);
      }),
      runs,
    );
  });

  test("invert of invert is the same ChangeSet", () => {
    fc.assert(
      fc.property(changeSetArbitrary, (cs) => {
        expect(hexOf(invert(invert(cs)))).toBe(hexOf(cs));
        expect(hexOf(collect(invertSource(sourceOf(cs))))).toBe(hexOf(invert(cs)));
      }),
      runs,
    );
  });

  test("apply, then the inverse, restores", () => {
    fc.assert(
      fc.property(stepArbitrary, ({ before, now, cs }) => {
        expect(sameState(applyTo(applyTo(before, cs), invert(cs)), before)).toBe(true);
        expect(sameState(applyTo(now, invert(cs)), before)).toBe(true);
      }),
      runs,
    );
  });

  test("compose equals applying one after the other", () => {
    fc.assert(
      fc.property(statesArbitrary(3), ([a = new Map(), b = new Map(), c = new Map()]) => {
        const both = compose(diff(a, b), diff(b, c));
        expect(sameState(applyTo(a, both), c)).toBe(true);
        expect(effectOf(both)).toBe(effectOf(diff(a, c)));
      }),
      runs,
    );
  });

  test("compose is associative in what it does to rows", () => {
    fc.assert(
      fc.property(statesArbitrary(4), ([a = new Map(), b = new Map(), c = new Map(), d = new Map()]) => {
        const [x, y, z] = [diff(a, b), diff(b, c), diff(c, d)];
        expect(effectOf(compose(compose(x, y), z))).toBe(effectOf(compose(x, compose(y, z))));
      }),
      runs,
    );
  });

  test("a ChangeSet and its inverse compose to nothing", () => {
    fc.assert(
      fc.property(changeSetArbitrary, (cs) => {
        expect(compose(cs, invert(cs)).changes).toEqual([]);
        expect(compose(cs, invert(cs)).tables).toEqual([]);
      }),
      runs,
    );
  });

  test("the form does not depend on the order in which changes and tables arrive", () => {
    fc.assert(
      fc.property(changeSetArbitrary, fc.infiniteStream(fc.nat()), (cs, numbers) => {
        const shuffle = <T>(list: readonly T[]): T[] =>
          list
            .map((item) => ({ item, at: numbers.next().value ?? 0 }))
            .sort((a, b) => a.at - b.at)
            .map(({ item }) => item);
        expect(hexOf(changeSet(shuffle(cs.tables), shuffle(cs.changes)))).toBe(hexOf(cs));
      }),
      runs,
    );
  });
});

describe("taking back", () => {
  test("a row that is as we wrote it goes back by the inverse", () => {
    fc.assert(
      fc.property(changeSetArbitrary, (cs) => {
        for (const c of cs.changes) {
          const shape = cs.tables.find((t) => t.name === c.table);
          const generatedOnly = shape?.columns.every(
            (column, i) =>
              column.generated === true || sameValue(beforeOf(c)?.[i] ?? null, afterOf(c)?.[i] ?? null),
          );
          if (shape === undefined || (c.op === "update" && generatedOnly === true)) continue;
          const back = takeBack(shape, c, afterOf(c), c.op === "delete" ? 0 : (c.count ?? 1));
          const change = back.kind === "put-back" ? back.change : undefined;
          expect(hexOf(changeSet([shape], change === undefined ? [] : [change]))).toBe(
            hexOf(changeSet([shape], [invertChange(c)])),
          );
        }
      }),
      runs,
    );
  });

  test("cells that we did not write are never changed, whatever the answer to conflicts", () => {
    const image = fc.array(fc.constantFrom("x", "y", null), { minLength: 4, maxLength: 4 });
    const answers = fc.constantFrom("stop", "keep-now", "restore-before");
    const shape = {
      name: "t",
      columns: ["id", "a", "b", "c", "d"].map((name) => ({ name, type: "" })),
      keyKind: "primary",
      key: [0],
    } as const;
    fc.assert(
      fc.property(image, image, image, answers, (b, w, n, onConflict) => {
        const [before, wrote, now] = [b, w, n].map((cells) => [1n, ...cells]);
        const merged = mergeRow(shape, before ?? [], wrote ?? [], now ?? [], { onConflict });
        if (merged.kind !== "put-back" && merged.kind !== "merged") return;
        merged.row?.forEach((v, i) => {
          const untouched = sameValue(before?.[i] ?? null, wrote?.[i] ?? null);
          if (untouched) expect(v).toBe(now?.[i]);
          else expect([before?.[i], now?.[i]]).toContain(v);
        });
      }),
      runs,
    );
  });
});

describe("the stream", () => {
  test("decode of encode is the same ChangeSet, with the digest and counts of the source", () => {
    fc.assert(
      fc.property(changeSetArbitrary, fc.integer({ min: 1, max: 40 }), (cs, cut) => {
        const bytes = encoded(cs);
        const pieces = Array.from({ length: Math.ceil(bytes.length / cut) }, (_, i) =>
          bytes.subarray(i * cut, i * cut + cut),
        );
        const read = decodeChangeSet(pieces);
        expect(hexOf(read)).toBe(bytes.toString("hex"));
        expect(read.tables).toEqual(cs.tables);
        read.changes.forEach((c, i) => {
          const original = cs.changes[i];
          expect([c.table, c.op, c.origin, c.count]).toEqual([
            original?.table,
            original?.op,
            original?.origin,
            original?.count,
          ]);
          expect(original !== undefined && sameRow(beforeOf(c), beforeOf(original))).toBe(true);
          expect(original !== undefined && sameRow(afterOf(c), afterOf(original))).toBe(true);
          expect(sameRow(c.link ?? null, original?.link ?? null)).toBe(true);
        });
        const facts = digestOfSource(sourceOf(cs));
        expect(facts.digest).toBe(digestOf(bytes));
        expect(facts.bytes).toBe(bytes.length);
        expect(facts.tables).toEqual(countsOf(sourceOf(cs)));
      }),
      runs,
    );
  });

  test("an altered stream is refused, or is the one encoding of another ChangeSet with another digest", () => {
    const noSink = { table: () => undefined, add: () => undefined };
    fc.assert(
      fc.property(changeSetArbitrary, fc.integer({ min: 1, max: 255 }), (cs, flip) => {
        const bytes = encoded(cs);
        const { digest } = digestOfSource(sourceOf(cs));
        for (const changed of alterationsOf(bytes, flip)) {
          expect(refusalOf(() => decodeStream([changed], noSink, { expected: digest }))).toBe(
            "ERR_CHANGESET_ALTERED",
          );
          try {
            expect(hexOf(decodeChangeSet([changed]))).toBe(changed.toString("hex"));
          } catch (e) {
            expect(codeOf(e)).toBe("ERR_CHANGESET_ALTERED");
          }
        }
      }),
      fewRuns,
    );
  });
});

describe("the blocks", () => {
  const content = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc.tuple(fc.nat(255), fc.integer({ min: 0, max: 3000 })).map(([byte, n]) => new Uint8Array(n).fill(byte)),
  );
  const codec = fc.constantFrom("none", "brotli");

  test("unpack of pack has the same bytes, however they are cut", () => {
    fc.assert(
      fc.property(
        fc.array(content, { maxLength: 4 }),
        codec,
        fc.integer({ min: 1, max: 500 }),
        (chunks, codec, cut) => {
          const packed = bytesOf(packBlocks(chunks, { codec }));
          const pieces = Array.from({ length: Math.ceil(packed.length / cut) }, (_, i) =>
            packed.subarray(i * cut, i * cut + cut),
          );
          expect(bytesOf(unpackBlocks(pieces)).equals(bytesOf(chunks))).toBe(true);
        },
      ),
      runs,
    );
  });

  test("written while changes pass they are those of their source, and so is what was measured", () => {
    fc.assert(
      fc.property(changeSetArbitrary, (cs) => {
        const pieces: Uint8Array[] = [];
        const packer = new BlockPacker((piece) => pieces.push(piece));
        const stream = new StreamInProgress((chunk) => packer.push(chunk));
        for (const shape of cs.tables) {
          stream.table(shape);
          for (const change of cs.changes.filter((c) => c.table === shape.name)) stream.add(change);
        }
        const measured = stream.finish();
        packer.end();
        expect(measured).toEqual(digestOfSource(sourceOf(cs)));
        expect(bytesOf(pieces).equals(bytesOf(packBlocks(encodeStream(sourceOf(cs)))))).toBe(true);
      }),
      runs,
    );
  });

  test("any altered, missing or extra byte is refused", () => {
    fc.assert(
      fc.property(content, codec, fc.integer({ min: 1, max: 255 }), (chunk, codec, flip) => {
        const packed = bytesOf(packBlocks([chunk], { codec }));
        for (const changed of alterationsOf(packed, flip)) {
          expect(refusalOf(() => bytesOf(unpackBlocks([changed])))).toBe("ERR_CHANGESET_ALTERED");
        }
      }),
      fewRuns,
    );
  });
});

describe("the summary", () => {
  test("patterns cover every row once, and the sample is of the changes", () => {
    const limits = fc.record({ sampleSize: fc.nat(5), patternLimit: fc.nat(4) });
    fc.assert(
      fc.property(changeSetArbitrary, limits, (cs, limit) => {
        const summary = summarise(sourceOf(cs), { sampleSeed: digestOf("plan"), ...limit });
        const rows = cs.changes.reduce((sum, c) => sum + (c.count ?? 1), 0);
        expect(summary.rows).toBe(rows);
        expect(summary.patterns.reduce((sum, p) => sum + p.rows, 0)).toBe(rows);
        expect(summary.tables.map((t) => t.name)).toEqual(cs.tables.map((t) => t.name));
        expect(summary.sample.length).toBe(Math.min(limit.sampleSize, cs.changes.length));
        expect(summary.sample.every((c) => cs.changes.includes(c))).toBe(true);
      }),
      runs,
    );
  });
});

/** Each byte changed, each cut, each byte doubled, one byte more. */
function* alterationsOf(bytes: Buffer, flip: number): Iterable<Buffer> {
  for (let i = 0; i < bytes.length; i++) {
    const changed = Buffer.from(bytes);
    changed[i] = (changed[i] ?? 0) ^ flip;
    yield changed;
    yield bytes.subarray(0, i);
    yield Buffer.concat([bytes.subarray(0, i), bytes.subarray(i, i + 1), bytes.subarray(i)]);
  }
  yield Buffer.concat([bytes, Buffer.of(flip)]);
}
