/** A process that commits one small change after another to a row of its own until its input ends. */
import Database from "better-sqlite3";

const db = new Database(process.argv[2] ?? "", { timeout: 10_000 });
const count = db.prepare("UPDATE customers SET name = CAST(? AS TEXT) WHERE id = 100");
let n = 0;
let ending = false;
process.stdin.on("end", () => {
  ending = true;
});
process.stdin.resume();
write();

function write(): void {
  if (ending) {
    db.close();
    return;
  }
  count.run(++n);
  if (n === 1) process.stdout.write("writing\n");
  // A pause between two commits, as any application has: without one a rollback journal lets no reader in for long.
  setTimeout(write, 20);
}
