// Before the first test file: a folder for what all files of one run share, such as one server of each kind. Whoever puts
// something there that lives on ends it when the process named here is gone, and removes the folder.
import { chmodSync, mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export default function makeRunFolder() {
  const folder = mkdtempSync(join(tmpdir(), "hp-run-"));
  // Servers run as another user under root.
  chmodSync(folder, 0o755);
  process.once("exit", () => {
    try {
      rmdirSync(folder);
    } catch {
      // Something in it lives still: its keeper removes both.
    }
  });
  process.env.HOLDPOINT_TEST_RUN = folder;
  process.env.HOLDPOINT_TEST_RUN_PID = String(process.pid);
}
