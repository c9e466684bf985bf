import { describe, expect, test } from "@jest/globals";
import {
  array,
  boolean,
  count,
  decode,
  type Decoder,
  digest,
  id,
  int,
  json,
  literal,
  nonEmpty,
  nullable,
  object,
  objectWith,
  pair,
  record,
  stampText,
  string,
  tagged,
  toJson,
} from "../../src/base/decode.js";
import type { Json } from "../../src/base/canonical.js";

function why(decoder: Decoder<unknown>, value: Json): string {
  const result = decode(decoder, value);
  return result.ok ? "decoded" : result.why;
}

describe("a decoder fails with the path of what is wrong", () => {
  const thing = object({ name: nonEmpty, sizes: array(count) });
  test.each<[string, Decoder<unknown>, Json, string]>([
    ["a field missing", thing, { name: "a" }, "$.sizes must be present, found nothing"],
    [
      "a field too many",
      thing,
      { name: "a", sizes: [], x: 1 },
      "$.x must be absent: this version does not know the field, found 1",
    ],
    [
      "a name from the prototype",
      thing,
      { name: "a", sizes: [], constructor: 1 },
      "$.constructor must be absent: this version does not know the field, found 1",
    ],
    [
      "an element",
      thing,
      { name: "a", sizes: [1, -2] },
      "$.sizes[1] must be a whole number that is not negative, found -2",
    ],
    ["an odd field name", record(int), { "a b": "x" }, '$["a b"] must be a whole number, found "x"'],
    ["a fraction", int, 1.5, "$ must be a whole number, found 1.5"],
    ["an inexact number", int, 2 ** 53, "$ must be a whole number, found 9007199254740992"],
    ["an array for an object", object({}), [], "$ must be an object, found an array"],
    ["null for an object", object({}), null, "$ must be an object, found null"],
    ["an object for an array", array(json), {}, "$ must be an array, found an object"],
    ["a word that is not one of them", literal("a", "b"), "c", '$ must be "a" or "b", found "c"'],
    ["three for two", pair(int, int), [1, 2, 3], "$ must be an array of two elements, found an array"],
    ["a long text, cut", boolean, "x".repeat(100), `$ must be true or false, found "${"x".repeat(56)}…`],
    [
      "a digest in capitals",
      digest,
      `sha256:${"A".repeat(64)}`,
      `$ must be a sha256 digest, found "sha256:${"A".repeat(49)}…`,
    ],
    [
      "a day that does not exist",
      stampText,
      "2026-02-30T00:00:00Z",
      '$ must be a time like 2026-11-24T14:38:44Z, found "2026-02-30T00:00:00Z"',
    ],
    ["half an id", id("pl"), "pl_0", '$ must be an id pl_ with 16 characters, found "pl_0"'],
    [
      "an unknown tag",
      tagged("op", { a: object({ op: literal("a") }) }),
      { op: "b" },
      '$.op must be a, found "b"',
    ],
  ])("%s", (_, decoder, value, expected) => {
    expect(why(decoder, value)).toBe(expected);
  });

  test("a document nested deeper than the stack", () => {
    const deep: Decoder<unknown> = (value, path) => array(deep)(value, path);
    let value: Json = [];
    for (let i = 0; i < 100_000; i++) value = [value];
    expect(why(deep, value)).toBe("the document is nested too deeply");
  });
});

describe("a decoder gives what is there", () => {
  test("optional fields may be absent, required ones may be null where that is said", () => {
    const decoder = objectWith({ a: nullable(string) }, { b: int });
    expect(decode(decoder, { a: null })).toEqual({ ok: true, value: { a: null } });
    expect(decode(decoder, { a: "x", b: 2 })).toEqual({ ok: true, value: { a: "x", b: 2 } });
    expect(why(decoder, { a: "x", b: null })).toMatch(/^\$\.b/);
  });

  test("fields called like the prototype's stay fields", () => {
    const value = JSON.parse('{"__proto__":1,"constructor":2}') as Json;
    const result = decode(record(int), value);
    expect(result.ok && Object.entries(result.value)).toEqual([
      ["__proto__", 1],
      ["constructor", 2],
    ]);
  });

  test("one case of several", () => {
    const decoder = tagged("op", {
      add: object({ op: literal("add"), by: int }),
      stop: object({ op: literal("stop") }),
    });
    expect(decode(decoder, { op: "add", by: 3 })).toEqual({ ok: true, value: { op: "add", by: 3 } });
    expect(why(decoder, { op: "stop", by: 3 })).toMatch(/^\$\.by/);
  });
});

describe("toJson", () => {
  test("leaves undefined fields out and refuses what is not plain data", () => {
    expect(toJson({ a: [1, { b: undefined }], c: null })).toEqual({ a: [1, {}], c: null });
    for (const odd of [1n, () => 1, new Date(0), new Map(), Buffer.from("x")]) {
      expect(() => toJson({ odd })).toThrow(expect.objectContaining({ code: "ERR_INTERNAL" }));
    }
  });
});
