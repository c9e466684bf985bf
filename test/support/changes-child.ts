/** Writes and reads a working ChangeSet of so many rows, prints its peak memory in MB: `changes-child.js FOLDER ROWS`. */
import { join } from "node:path";
import { createChanges } from "../../src/storage/changes.js";
import { ORDERS } from "./tables.js";

const [folder = "", rows = "0"] = process.argv.slice(2);
const text = "x".repeat(400);
let peakBytes = 0;
const watch = (i: bigint): void => {
  if (i % 1000n === 0n) peakBytes = Math.max(peakBytes, process.memoryUsage().rss);
};

const writer = await createChanges(join(folder, `${rows}.db`), {
  runBounded: async () => ({ kind: "late" }),
  removeOnClose: true,
});
writer.table(ORDERS);
for (let i = 0n; i < BigInt(rows); i++) {
  writer.add({
    op: "update",
    table: "orders",
    key: [i],
    origin: "job",
    before: [i, `${i}${text}`],
    after: [i, `${text}${i}`],
  });
  watch(i);
}
const file = writer.finish();
let read = 0n;
for (const _ of file.changes("orders")) watch(read++);
file.close();
if (read !== BigInt(rows)) throw new Error(`${read} rows read`);
process.stdout.write(`${Math.round(peakBytes / 1024 ** 2)}\n`);
