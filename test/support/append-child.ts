/** A process that appends to a ledger: `append-child.js FOLDER NAME COUNT`. For the test of concurrent appends. */
import { randomBytes } from "node:crypto";
import { openLedger } from "../../src/storage/ledger.js";

const [folder = "", name = "", count = "0"] = process.argv.slice(2);
const ledger = await openLedger(folder, {
  clock: { now: () => new Date() },
  random: (size) => randomBytes(size),
});
try {
  for (let i = 0; i < Number(count); i++)
    ledger.append({ kind: "planned", plan: name, facts: { number: i } });
} finally {
  ledger.close();
}
