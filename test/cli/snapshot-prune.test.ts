/** Pruning beside a snapshot that stays and cannot be read: which pages it shares, nobody knows. */
import { copyFileSync, truncateSync } from "node:fs";
import { afterEach, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";

let project: TestProject;
afterEach(() => project?.close());

function take(): string {
  const taken = project.json(["snapshot", "take", "--on", "shop-prod"]);
  if (!taken.ok) throw new Error(JSON.stringify(taken.error));
  return String(taken.result["snapshot"]);
}

test("pages that it may share are not destroyed, nothing is recorded, and once it can be read again both are whole", () => {
  project = makeProject();
  const first = take();
  project.raw("UPDATE orders SET note = 'newer' WHERE id = 7");
  const second = take();
  const manifest = project.path(`.holdpoint/snapshots/${second}.hpsnap`);
  copyFileSync(manifest, project.path("manifest"));
  truncateSync(manifest, 0);

  const refused = project.json(["snapshot", "prune", first]);
  expect(refused).toMatchObject({
    exit: { code: 36 },
    target_changed: "no",
    error: { code: "ERR_SNAPSHOT_UNVERIFIED", what: expect.stringContaining(second) as unknown },
  });

  copyFileSync(project.path("manifest"), manifest);
  for (const id of [first, second]) expect(project.json(["snapshot", "verify", id]).ok).toBe(true);
  // The lost one alone may go: what it shared with others stays theirs.
  truncateSync(manifest, 0);
  expect(project.json(["snapshot", "prune", second]).ok).toBe(true);
  expect(project.json(["snapshot", "verify", first]).ok).toBe(true);
});
