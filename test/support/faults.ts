/** Faults put on real acts: one child for each, from a state that is saved and brought back. */
import { spawnSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Act, Fault, FaultReport } from "./fault-child.js";
import type { TestProject } from "./project.js";

const CHILD = join(import.meta.dirname, "fault-child.js");
const ASKED = process.env["HOLDPOINT_FAULTS"];

/** Spread over all of 1..n; all of them when asked. The last ones matter most: there lie commits and records. */
export function chosen(n: number, least: number): readonly number[] {
  const sample = Math.min(n, Number(ASKED ?? least));
  if (ASKED === "all") return Array.from({ length: n }, (_, i) => i + 1);
  // One alone tells most where the work is done: behind the reading, before the end.
  if (sample === 1) return [Math.ceil((n * 2) / 3)];
  const spread = Array.from(
    { length: sample },
    (_, i) => 1 + Math.floor((i * (n - 1)) / Math.max(1, sample - 1)),
  );
  return [...new Set(spread)];
}

/** Null when the process was killed. */
export function run(project: TestProject, act: Act, fault: Fault): FaultReport | null {
  const done = spawnSync(
    process.execPath,
    ["--no-warnings", CHILD, project.dir, JSON.stringify(act), JSON.stringify(fault)],
    {
      encoding: "utf8",
      timeout: 60_000,
    },
  );
  if (done.signal === "SIGKILL" && fault.kind.startsWith("kill")) return null;
  if (done.status !== 0) throw new Error(`${JSON.stringify(fault)}: ${done.stderr}`);
  return JSON.parse(done.stdout) as FaultReport;
}

/** Remembers target and store as they are now. */
export function save(project: TestProject): void {
  copyFileSync(project.database, `${project.dir}/saved.db`);
  saveStore(project);
}

/** Remembers the store alone. */
export function saveStore(project: TestProject): void {
  copy(`${project.dir}/.holdpoint`, `${project.dir}/saved-store`);
}

/** Brings back what {@link saveStore} remembered. */
export function restoreStore(project: TestProject): void {
  copy(`${project.dir}/saved-store`, `${project.dir}/.holdpoint`);
}

/** Brings back what {@link save} remembered, into the same file: the target knows itself by its inode. */
export function restore(project: TestProject): void {
  for (const side of ["-wal", "-shm", "-journal", "-holdpoint-run", "-holdpoint-run-journal"])
    rmSync(`${project.database}${side}`, { force: true });
  copyFileSync(`${project.dir}/saved.db`, project.database);
  restoreStore(project);
}

function copy(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  const done = spawnSync("cp", ["-a", from, to]);
  if (done.status !== 0) throw new Error(String(done.stderr));
}
