/** The contract of targets, on SQLite in both journal modes. */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { dump, openTarget, runRaw } from "../support/sqlite.js";
import { describeTarget } from "./target.js";

for (const journal of ["delete", "wal"]) {
  describeTarget({
    name: `SQLite, journal_mode ${journal}`,
    auditTrigger:
      "CREATE TRIGGER orders_gone AFTER DELETE ON orders BEGIN INSERT INTO audit VALUES ('gone', OLD.id); END",
    create: async () => {
      const folder = realpathSync(mkdtempSync(join(tmpdir(), "holdpoint-test-")));
      const path = join(folder, "shop.db");
      runRaw(path, `PRAGMA journal_mode = ${journal}`);
      return {
        open: () => openTarget(path, folder),
        exec: async (sql) => runRaw(path, sql, true),
        dump: async () => dump(path),
        drop: async () => rmSync(folder, { recursive: true, force: true }),
      };
    },
  });
}
