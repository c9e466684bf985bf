/**
 * Real documents, altered as somebody would who knows what they look like: bytes, lines, numbers, words that mean something
 * somewhere, pieces of other documents. For fuzzers of every reader of what others made.
 */
import fc from "./fast-check.js";
import { HoldpointError } from "../../src/base/errors.js";

/** Words that are somewhere a command, an escape, a key of the language, or the edge of a number. */
export const HOSTILE_WORDS: readonly string[] = [
  "__proto__",
  "constructor",
  "\u001b[2J",
  "\u001b]0;owned\u0007",
  "\u202e",
  "\u2028",
  "\0",
  "\ufeff",
  "\ufffd",
  "e\u0301",
  "$(id)",
  "; rm -rf /",
  "`id`",
  "../../etc/passwd",
  "'",
  '"',
  "\\",
  "${HOME}",
  "&a [*a]",
  "<<: *a",
  "!!js/function ''",
  "%YAML 1.1",
  "---\n",
  "? ",
  "- ",
  "{",
  "}",
  "[",
  "]",
  ",",
  ": ",
  "#",
  "\n",
  "\r\n",
  "\t",
  "null",
  "true",
  "-0",
  "1e999",
  "9007199254740993",
  "18446744073709551616",
  "-1",
  "NaN",
  "*",
  "cert-authority,",
  'namespaces="*"',
  "a".repeat(5_000),
];

type Edit = (bytes: Buffer) => Buffer;

const share = fc.double({ min: 0, max: 1, noNaN: true });
const placeIn = (bytes: Buffer, at: number): number =>
  Math.min(bytes.length, Math.floor(at * (bytes.length + 1)));

function inserted(bytes: Buffer, at: number, what: Uint8Array): Buffer {
  const place = placeIn(bytes, at);
  return Buffer.concat([bytes.subarray(0, place), what, bytes.subarray(place)]);
}

/** Swaps, drops or doubles lines. */
function relined(bytes: Buffer, a: number, b: number, how: "swap" | "drop" | "double"): Buffer {
  const lines = bytes.toString("latin1").split("\n");
  const [i, j] = [a, b].map((at) => Math.min(lines.length - 1, Math.floor(at * lines.length)));
  const [first, second] = [lines[i ?? 0] ?? "", lines[j ?? 0] ?? ""];
  if (how === "drop") lines.splice(i ?? 0, 1);
  else if (how === "double") lines.splice(j ?? 0, 0, first);
  else [lines[i ?? 0], lines[j ?? 0]] = [second, first];
  return Buffer.from(lines.join("\n"), "latin1");
}

const EDITS: fc.Arbitrary<Edit> = fc.oneof(
  fc.tuple(share, fc.integer({ min: 1, max: 255 })).map(([at, flip]): Edit => (bytes) => {
    const copy = Buffer.from(bytes);
    const place = placeIn(bytes, at);
    if (place < copy.length) copy[place] = (copy[place] ?? 0) ^ flip;
    return copy;
  }),
  fc.tuple(share, share).map(([a, b]): Edit => (bytes) => {
    const [from, to] = [placeIn(bytes, Math.min(a, b)), placeIn(bytes, Math.max(a, b))];
    return Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]);
  }),
  fc.tuple(share, share, share).map(([a, b, at]): Edit => (bytes) => {
    const piece = bytes.subarray(placeIn(bytes, Math.min(a, b)), placeIn(bytes, Math.max(a, b)));
    return inserted(bytes, at, piece.subarray(0, 2_000));
  }),
  fc.tuple(share, fc.constantFrom(...HOSTILE_WORDS)).map(
    ([at, word]): Edit =>
      (bytes) =>
        inserted(bytes, at, Buffer.from(word)),
  ),
  fc.tuple(share, fc.uint8Array({ minLength: 1, maxLength: 8 })).map(
    ([at, what]): Edit =>
      (bytes) =>
        inserted(bytes, at, what),
  ),
  fc.tuple(share, share, fc.constantFrom("swap", "drop", "double")).map(
    ([a, b, how]): Edit =>
      (bytes) =>
        relined(bytes, a, b, how),
  ),
  // A number becomes another one, of any size.
  fc
    .tuple(share, fc.constantFrom("0", "1", "-1", "4294967296", "1152921504606846976", "0x10", "01"))
    .map(([at, number]): Edit => (bytes) => {
      const text = bytes.toString("latin1");
      const found = [...text.matchAll(/\d+/g)];
      const one = found[Math.min(found.length - 1, Math.floor(at * found.length))];
      if (one === undefined) return bytes;
      return Buffer.from(text.slice(0, one.index) + number + text.slice(one.index + one[0].length), "latin1");
    }),
);

/** One of the documents with one to four edits, or two documents grown together; never one of them as it was. */
export function altered(documents: readonly Uint8Array[]): fc.Arbitrary<Buffer> {
  const originals: readonly Buffer[] = documents.map((d) => Buffer.from(d));
  const one = fc.constantFrom(...originals);
  const start = fc.oneof(
    { weight: 9, arbitrary: one },
    {
      weight: 1,
      arbitrary: fc
        .tuple(one, one, share, share)
        .map(([a, b, x, y]) => Buffer.concat([a.subarray(0, placeIn(a, x)), b.subarray(placeIn(b, y))])),
    },
  );
  return fc
    .tuple(start, fc.array(EDITS, { minLength: 1, maxLength: 4 }))
    .map(([bytes, edits]) => edits.reduce<Buffer>((b, edit) => edit(b), bytes))
    .filter((bytes) => !originals.some((o) => o.equals(bytes)));
}

/** What a reader gave, or `refused`: by one of our own errors. Anything else that it throws is the failure of the test. */
export function readOrRefused<T>(read: () => T): T | "refused" {
  try {
    return read();
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL") return "refused";
    throw e;
  }
}

/** Holds that each call ends soon, and that none changed what every object inherits. */
export function watched<A extends unknown[]>(work: (...args: A) => void): (...args: A) => void {
  return (...args) => {
    const started = process.cpuUsage();
    work(...args);
    const { user, system } = process.cpuUsage(started);
    // Far above what any input takes, and far below what a person would call hanging.
    if (user + system > 3_000_000)
      throw new Error(`one input took ${(user + system) / 1000} ms of processor`);
    if (Object.keys(Object.prototype).length > 0) throw new Error("Object.prototype was changed");
  };
}
