/** `diffStreams` is `diffSorted` over rows that arrive asynchronously. */
import { expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import type { TableShape } from "../../src/changeset/change.js";
import { diffSorted } from "../../src/changeset/diff.js";
import { diffStreams } from "../../src/changeset/diff-streams.js";
import { compareKeys } from "../../src/changeset/key.js";
import type { Row } from "../../src/changeset/value.js";

const keyed: TableShape = {
  name: "t",
  columns: [
    { name: "id", type: "INTEGER" },
    { name: "v", type: "TEXT" },
  ],
  keyKind: "primary",
  key: [0],
};
const keyless: TableShape = { ...keyed, keyKind: "none", key: [0, 1] };

const rows = fc.array(fc.tuple(fc.integer({ min: 0, max: 9 }), fc.constantFrom("a", "b")), { maxLength: 12 });

async function* slowly(from: readonly Row[]): AsyncGenerator<Row, undefined> {
  for (const row of from) yield await Promise.resolve(row);
}

function stateOf(shape: TableShape, given: readonly (readonly [number, string])[]): readonly Row[] {
  const kept = shape.keyKind === "none" ? given : [...new Map(given)];
  return kept.map(([id, v]): Row => [BigInt(id), v]).toSorted(compareKeys);
}

test.each([keyed, keyless])("yields the same changes ($keyKind key)", async (shape) => {
  await fc.assert(
    fc.asyncProperty(rows, rows, async (a, b) => {
      const [before, now] = [stateOf(shape, a), stateOf(shape, b)];
      const streamed = [];
      for await (const change of diffStreams(shape, slowly(before), slowly(now))) streamed.push(change);
      expect(streamed).toEqual([...diffSorted(shape, before, now)]);
    }),
  );
});
