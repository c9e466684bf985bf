import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { brotliCompressSync } from "node:zlib";
import { describe, expect, test } from "@jest/globals";
import { digestOf } from "../../src/base/digest.js";
import { codeOf } from "../../src/base/errors.js";
import { BLOCK_BYTES, packBlocks, unpackBlocks } from "../../src/changeset/blocks.js";
import type { Change, ChangeSet, ChangeSource, TableShape } from "../../src/changeset/change.js";
import {
  decodeChangeSet,
  decodeStream,
  digestOfSource,
  encodeStream,
  type DecodeLimits,
} from "../../src/changeset/encode.js";
import { changeSet, sourceOf } from "../../src/changeset/source.js";
import type { Value } from "../../src/changeset/value.js";
import { HOSTILE_VALUES } from "../support/changeset-arbitrary.js";

const root = new URL("../../../", import.meta.url);
const vectors = new URL("test/vectors/changeset-1/", root);

const bytesOf = (chunks: Iterable<Uint8Array>): Buffer => Buffer.concat([...chunks]);
const encoded = (cs: ChangeSet): Buffer => bytesOf(encodeStream(sourceOf(cs)));

/** Hexadecimal digits; `#` starts a remark that runs to the end of its line. */
const fromHex = (text: string): Buffer => Buffer.from(text.replaceAll(/#.*|\s/g, ""), "hex");
const vector = (name: string): string => readFileSync(new URL(name, vectors), "utf8");

function refusalOf(act: () => unknown): string | undefined {
  try {
    act();
    return "accepted";
  } catch (e) {
    return codeOf(e);
  }
}

// ---- the ChangeSets whose bytes are frozen ----

const orders: TableShape = {
  name: "orders",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "status", type: "TEXT" },
    { name: "note", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};

const FROZEN: Readonly<Record<string, ChangeSet>> = {
  "empty.hex": changeSet([orders], []),
  "orders.hex": changeSet(
    [orders],
    [
      {
        table: "orders",
        key: [118n],
        origin: "job",
        op: "update",
        before: [118n, "pending", null],
        after: [118n, "paid", ""],
      },
      { table: "orders", key: [121n], origin: "job", op: "insert", after: [121n, "paid", null] },
      { table: "orders", key: [130n], origin: "cascade", op: "delete", before: [130n, "pending", "call"] },
    ],
  ),
  "every-value.hex": everyValue(),
  "every-table.hex": everyTable(),
};

function everyValue(): ChangeSet {
  const shape: TableShape = {
    name: "värde",
    columns: [
      { name: "n", type: "INTEGER" },
      { name: "v", type: "" },
    ],
    keyKind: "primary",
    key: [0],
  };
  const changes = HOSTILE_VALUES.map((v, i): Change => {
    const key = [BigInt(i)];
    return { table: shape.name, key, origin: "unknown", op: "insert", after: [BigInt(i), v] };
  });
  return changeSet([shape], changes);
}

function everyTable(): ChangeSet {
  const composite: TableShape = {
    name: "composite",
    columns: [
      ...["a", "b", "c", "d", "e", "f", "g", "h"].map((name) => ({ name, type: "TEXT" })),
      { name: "sum", type: "numeric(10,2)", generated: true },
    ],
    keyKind: "primary",
    key: [2, 0],
  };
  const bag: TableShape = { name: "bag", columns: [{ name: "line", type: "" }], keyKind: "none", key: [0] };
  const row = (a: Value, c: Value, h: Value, sum: Value): readonly Value[] => [
    a,
    "b",
    c,
    "d",
    "e",
    "f",
    "g",
    h,
    sum,
  ];
  const facts = { table: "composite", origin: "trigger" } as const;
  return changeSet(
    [composite, bag],
    [
      {
        ...facts,
        key: ["c", null],
        op: "update",
        before: row(null, "c", "h", "1.00"),
        after: row(null, "c", null, "2.50"),
      },
      { ...facts, key: ["c", "a"], op: "delete", before: row("a", "c", "h", null), link: ["c", "z"] },
      { ...facts, key: ["c", "z"], op: "insert", after: row("z", "c", "h", null), link: ["c", "a"] },
      { table: "bag", key: ["x"], origin: "job", op: "insert", after: ["x"], count: 300 },
      { table: "bag", key: ["y"], origin: "job", op: "delete", before: ["y"] },
    ],
  );
}

describe("version 1, frozen", () => {
  test.each(Object.keys(FROZEN))("%s is what we write, and reads back", (name) => {
    const cs = FROZEN[name];
    const text = vector(name);
    const bytes = fromHex(text);
    expect(cs === undefined ? "" : encoded(cs).toString("hex")).toBe(bytes.toString("hex"));
    expect(encoded(decodeChangeSet([bytes])).toString("hex")).toBe(bytes.toString("hex"));
    expect(text).toContain(`# digest ${digestOf(bytes)}`);
  });

  test.each(["blocks-none.hex", "blocks-brotli.hex"])("%s unpacks to orders.hex", (name) => {
    expect(bytesOf(unpackBlocks([fromHex(vector(name))])).equals(fromHex(vector("orders.hex")))).toBe(true);
  });

  test("uncompressed blocks are what we write", () => {
    const packed = bytesOf(packBlocks([fromHex(vector("orders.hex"))], { codec: "none" }));
    expect(packed.toString("hex")).toBe(fromHex(vector("blocks-none.hex")).toString("hex"));
  });

  test("the example in docs/formats/changeset.md is orders.hex", () => {
    const page = readFileSync(new URL("docs/formats/changeset.md", root), "utf8");
    const example = /```hex\n([^`]*)```/.exec(page)?.[1] ?? "";
    expect(fromHex(example).toString("hex")).toBe(fromHex(vector("orders.hex")).toString("hex"));
    expect(page).toContain(digestOf(fromHex(example)));
  });
});

describe("the writer", () => {
  const insert = (id: bigint, v: Value = null): Change => ({
    table: "orders",
    key: [id],
    origin: "job",
    op: "insert",
    after: [id, v, null],
  });
  const source = (...changes: readonly Change[]): ChangeSource => ({
    tables: [orders],
    changes: () => changes,
  });

  test("makes chunks of about 64 KiB, and a long value does not change the bytes", () => {
    const long = "ÿ".repeat(200_000);
    const chunks = [
      ...encodeStream(source(insert(1n, long), insert(2n, "x".repeat(40_000)), insert(3n, "y"))),
    ];
    expect(chunks.every((c) => c.length <= 64 * 1024)).toBe(true);
    const read = decodeChangeSet(chunks);
    const texts = read.changes.map((c) => (c.op === "insert" ? c.after[1] : null));
    expect(texts).toEqual([long, "x".repeat(40_000), "y"]);
    const small = [...bytesOf(chunks)].map((byte) => Uint8Array.of(byte));
    expect(digestOfSource(sourceOf(decodeChangeSet(small))).digest).toBe(digestOf(bytesOf(chunks)));
  });

  const unordered: readonly (readonly [string, ChangeSource])[] = [
    ["changes out of order", source(insert(2n), insert(1n))],
    ["two changes of one key", source(insert(1n), insert(1n))],
    ["a change of another table", source({ ...insert(1n), table: "other" })],
    ["a malformed change", source({ ...insert(1n), key: [2n] })],
    ["a table declared twice", { tables: [orders, orders], changes: () => [insert(1n)] }],
  ];
  test.each(unordered)("refuses %s", (_sentence, bad) => {
    expect(refusalOf(() => bytesOf(encodeStream(bad)))).toBe("ERR_INTERNAL");
  });

  test.each([
    ["an integer beyond 64 bits", 2n ** 64n],
    ["text with a lone surrogate", "\uDC00"],
    ["raw text that is UTF-8", { kind: "raw-text", bytes: Uint8Array.of(0x61) }],
    ["a value over the limit", new Uint8Array(256 * 1024 * 1024 + 1)],
  ] as const)("refuses %s by name", (_sentence, value) => {
    expect(refusalOf(() => bytesOf(encodeStream(source(insert(1n, value)))))).toBe("ERR_TARGET_VALUE");
  });

  test("refuses a name over the limit", () => {
    const named: TableShape = { ...orders, name: "t".repeat(1_025) };
    const cs = changeSet([named], [{ ...insert(1n), table: named.name }]);
    expect(refusalOf(() => encoded(cs))).toBe("ERR_TARGET_VALUE");
  });
});

describe("the reader refuses", () => {
  const ours = fromHex(vector("orders.hex"));
  const noSink = { table: () => undefined, add: () => undefined };
  const read = (bytes: Uint8Array, limits: DecodeLimits = {}): string | undefined =>
    refusalOf(() => decodeStream([bytes], noSink, limits));

  // "holdpoint-changeset/1", then table t of columns k (TEXT-less) and v, key k.
  const head = `15${Buffer.from("holdpoint-changeset/1").toString("hex")}`;
  const table = "01 0174 01 02 016b 00 00 0176 00 00 01 00";
  const bag = "01 0162 00 01 0178 00 00";
  const k = (n: number): string => `01 00000000000000${n.toString(16).padStart(2, "0")}`;
  const stream = (...parts: readonly string[]): Buffer => fromHex(`${head} ${parts.join(" ")}`);

  test.each([
    ["a keyed table", stream(table, `02 00 ${k(1)} 00`, "00")],
    ["a table without a key, with a count", stream(bag, "02 08 02 00", "00")],
  ])("nothing in %s that is in order", (_sentence, bytes) => {
    expect(read(bytes)).toBe("accepted");
    expect(encoded(decodeChangeSet([bytes])).equals(bytes)).toBe(true);
  });

  const bad: readonly (readonly [string, Buffer])[] = [
    ["an empty file", Buffer.alloc(0)],
    ["another format", fromHex(`05${Buffer.from("other").toString("hex")}`)],
    ["another version", fromHex(`15${Buffer.from("holdpoint-changeset/2").toString("hex")} 00`)],
    ["a second spelling of a length", fromHex(`9500${head.slice(2)} 00`)],
    ["a number of more than 53 bits", stream("01 ff ff ff ff ff ff ff ff 7f")],
    ["bytes after the end", stream("00 00")],
    ["an unknown part", stream("07")],
    ["a table without changes", stream(table, "00")],
    ["changes in descending order", stream(table, `02 00 ${k(2)} 00`, `02 00 ${k(1)} 00`, "00")],
    ["two changes of one key", stream(table, `02 00 ${k(1)} 00`, `04 00 ${k(1)} 00`, "00")],
    ["tables in descending order", stream(table, `02 00 ${k(1)} 00`, bag, "02 00 00", "00")],
    ["one table twice", stream(bag, "02 00 00", bag, "02 00 00", "00")],
    ["a flag that is neither 0 nor 1", stream("01 0174 02")],
    ["a table name that is not UTF-8", stream("01 01ff 01")],
    ["a key column outside of the table", stream("01 0174 01 01 016b 00 00 01 01", `02 00 ${k(1)}`, "00")],
    ["a key without columns", stream("01 0174 01 01 016b 00 00 00", `02 00 ${k(1)}`, "00")],
    [
      "two columns of one name",
      stream("01 0174 01 02 016b 00 00 016b 00 00 01 00", `02 00 ${k(1)} 00`, "00"),
    ],
    ["marks that mean nothing", stream(table, `02 10 ${k(1)} 00`, "00")],
    ["a written count of one", stream(bag, "02 08 01 00", "00")],
    ["a count in a table with a key", stream(table, `02 08 02 ${k(1)} 00`, "00")],
    ["a link to the row itself", stream(table, `02 04 ${k(1)} ${k(1)} 00`, "00")],
    ["a link in a table without a key", stream(bag, "02 04 05 00 00", "00")],
    ["a link on an update", stream(table, `03 04 ${k(2)} ${k(1)} 00 02 03 01 61`, "00")],
    ["an update in a table without a key", stream(bag, "03 00 00 01 03 01 61", "00")],
    ["an update that changes nothing", stream(table, `03 00 ${k(1)} 00 00`, "00")],
    ["an update that marks an equal cell", stream(table, `03 00 ${k(1)} 00 02 00`, "00")],
    ["an update that moves its key", stream(table, `03 00 ${k(1)} 00 01 ${k(2)}`, "00")],
    ["an update that marks a column beyond the last", stream(table, `03 00 ${k(1)} 00 06 03 01 61`, "00")],
    ["an unknown type of value", stream(table, `02 00 ${k(1)} 06`, "00")],
    ["a second spelling of NaN", stream(table, `02 00 ${k(1)} 02 7ff8000000000001`, "00")],
    ["text that is not UTF-8", stream(table, `02 00 ${k(1)} 03 01 ff`, "00")],
    ["an encoded surrogate", stream(table, `02 00 ${k(1)} 03 03 eda080`, "00")],
    ["raw text that is UTF-8", stream(table, `02 00 ${k(1)} 04 01 61`, "00")],
    ["a length beyond the end", stream(table, `02 00 ${k(1)} 05 7f 00`)],
  ];
  test.each(bad)("%s", (_sentence, bytes) => {
    expect(read(bytes)).toBe("ERR_CHANGESET_ALTERED");
  });

  test.each([
    ["tables", { tables: 0 }],
    ["columns", { columns: 2 }],
    ["a name's length", { nameBytes: 5 }],
    ["a value's length", { valueBytes: 6 }],
    ["a change's length", { changeBytes: 20 }],
  ] as const)("more than it is told to take: %s", (_sentence, limits) => {
    expect(read(ours, limits)).toBe("ERR_CHANGESET_ALTERED");
  });

  test("a value over the format's limit, whatever the caller allows, before reading it", () => {
    const huge = stream(table, `02 00 ${k(1)} 05 8180808001`); // 2^28 + 1 bytes announced
    expect(read(huge, { valueBytes: Number.MAX_SAFE_INTEGER })).toBe("ERR_CHANGESET_ALTERED");
  });

  test("another digest than the signed one", () => {
    expect(read(ours, { expected: digestOf(ours) })).toBe("accepted");
    expect(read(ours, { expected: digestOf("something else") })).toBe("ERR_CHANGESET_ALTERED");
  });

  test("and lets go of what it was reading from", () => {
    let closed = false;
    function* chunks(): Iterable<Uint8Array> {
      try {
        yield Buffer.from("no ChangeSet");
        yield Buffer.from("more");
      } finally {
        closed = true;
      }
    }
    expect(refusalOf(() => decodeStream(chunks(), noSink))).toBe("ERR_CHANGESET_ALTERED");
    expect(closed).toBe(true);
  });
});

describe("blocks", () => {
  const unpack = (bytes: Uint8Array, rawBytes?: number): string | undefined =>
    refusalOf(() => bytesOf(unpackBlocks([bytes], rawBytes === undefined ? {} : { rawBytes })));
  const format = Buffer.from("\x12holdpoint-blocks/1", "latin1");
  const sha = (...parts: readonly Uint8Array[]): Buffer =>
    createHash("sha256").update(Buffer.concat(parts)).digest();

  /** A file of one block and an end, everything under right digests, as a hostile author would make it. */
  function crafted(
    codec: number,
    stored: Uint8Array,
    raw: Uint8Array,
    declared: number = raw.length,
  ): Buffer {
    const header = Buffer.alloc(9);
    header[0] = codec;
    header.writeUInt32BE(declared, 1);
    header.writeUInt32BE(stored.length, 5);
    const end = Buffer.alloc(9, 0xff);
    end.writeBigUInt64BE(BigInt(raw.length), 1);
    return Buffer.concat([format, header, sha(header, stored), stored, end, sha(raw)]);
  }
  const zeros = Buffer.alloc(100_000);

  test("of more than one full block keep every byte", () => {
    const raw = Buffer.alloc(2 * BLOCK_BYTES + 5, "abcdefg");
    const packed = bytesOf(packBlocks([raw]));
    expect(packed.length).toBeLessThan(raw.length / 10);
    expect(bytesOf(unpackBlocks([packed])).equals(raw)).toBe(true);
    const cut = [
      raw.subarray(0, 7),
      new Uint8Array(0),
      raw.subarray(7, BLOCK_BYTES + 1),
      raw.subarray(BLOCK_BYTES + 1),
    ];
    expect(bytesOf(packBlocks(cut)).equals(packed)).toBe(true);
  });

  test("a well-made file is accepted, so that the refusals below are for their reason", () => {
    expect(unpack(crafted(1, brotliCompressSync(zeros), zeros))).toBe("accepted");
    expect(unpack(crafted(0, zeros, zeros))).toBe("accepted");
  });

  const bomb = brotliCompressSync(Buffer.alloc(64 * 1024 * 1024));
  const bad: readonly (readonly [string, Buffer])[] = [
    ["a bomb that declares little", crafted(1, bomb, zeros, 100_000)],
    ["a bomb that declares what it is", crafted(1, bomb, zeros, 64 * 1024 * 1024)],
    ["a block that is shorter than it declares", crafted(1, brotliCompressSync(zeros.subarray(1)), zeros)],
    ["a block that is no brotli stream", crafted(1, Buffer.alloc(50, 0xee), zeros)],
    [
      "bytes behind the brotli stream",
      crafted(1, Buffer.concat([brotliCompressSync(zeros), Buffer.of(0)]), zeros),
    ],
    ["an uncompressed block of another length", crafted(0, zeros.subarray(1), zeros)],
    ["a compressed block that is not shorter", crafted(1, brotliCompressSync(Buffer.of(7)), Buffer.of(7))],
    ["an unknown codec", crafted(2, brotliCompressSync(zeros), zeros)],
    ["an empty block", crafted(0, Buffer.alloc(0), Buffer.alloc(0))],
    ["blocks of another whole", crafted(0, zeros, Buffer.alloc(100_000, 1))],
    ["another total length", crafted(0, zeros, Buffer.alloc(99_999), 100_000)],
    ["another format", Buffer.from("\x12holdpoint-blocks/2")],
    ["nothing", Buffer.alloc(0)],
  ];
  test.each(bad)("%s is refused", (_sentence, bytes) => {
    expect(unpack(bytes)).toBe("ERR_CHANGESET_ALTERED");
  });

  test("more bytes than the reader wants are refused", () => {
    const packed = bytesOf(packBlocks([zeros]));
    expect(unpack(packed, zeros.length)).toBe("accepted");
    expect(unpack(packed, zeros.length - 1)).toBe("ERR_CHANGESET_ALTERED");
  });

  test("blocks in another order, left out or doubled are refused by the whole", () => {
    const [first = Buffer.alloc(0), a, b, end] = [
      ...packBlocks([Buffer.alloc(BLOCK_BYTES, 1), Buffer.alloc(9, 2)]),
    ];
    const parts = [a, b, end].map((p) => p ?? Buffer.alloc(0));
    const [one, two, last] = parts;
    const file = (...list: readonly (Uint8Array | undefined)[]): Buffer =>
      Buffer.concat([first, ...list.map((p) => p ?? Buffer.alloc(0))]);
    expect(unpack(file(one, two, last))).toBe("accepted");
    expect(unpack(file(two, one, last))).toBe("ERR_CHANGESET_ALTERED");
    expect(unpack(file(one, last))).toBe("ERR_CHANGESET_ALTERED");
    expect(unpack(file(one, two, two, last))).toBe("ERR_CHANGESET_ALTERED");
    expect(unpack(file(one, two))).toBe("ERR_CHANGESET_ALTERED");
  });
});
