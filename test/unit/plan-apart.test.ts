/** A plan is first read in a process that reaches nothing; whatever that process does, only "it holds" lets the plan in. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, describe, expect, test } from "@jest/globals";
import { type Apart, verifyApart } from "../../src/cli/apart.js";
import { confinement, runBounded } from "../../src/machine/child.js";
import { refusal } from "../support/refusal.js";

const dir = mkdtempSync(join(tmpdir(), "holdpoint-apart-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const plan = join(dir, "some.hpplan");
writeFileSync(plan, "bytes");

let programs = 0;

/** The real process under the real confinement, with another program in the place of ours. */
function instead(program: string, maxMs?: number): Apart {
  programs += 1;
  const file = join(dir, `program-${programs}.mjs`);
  writeFileSync(file, program);
  return {
    confinement: (readable, megabytes) => confinement([...readable, file], megabytes),
    run: (_script, input, limits) =>
      runBounded(pathToFileURL(file), input, { ...limits, maxMs: maxMs ?? limits.maxMs }),
  };
}

test("the process has no environment, and may read the plan and nothing of the machine", async () => {
  const secret = join(dir, "key");
  writeFileSync(secret, "a key");
  const script = join(dir, "tries.mjs");
  writeFileSync(
    script,
    `import { readFileSync, writeFileSync } from "node:fs";
     import { spawnSync } from "node:child_process";
     import { Worker } from "node:worker_threads";
     import { createRequire } from "node:module";
     const attempt = (what) => { try { what(); return "done"; } catch (e) { return e.code ?? e.message; } };
     const input = readFileSync(0, "utf8");
     process.stdout.write(JSON.stringify({
       plan: attempt(() => readFileSync(input)),
       key: attempt(() => readFileSync(${JSON.stringify(secret)})),
       write: attempt(() => writeFileSync(input, "other")),
       spawn: attempt(() => { const s = spawnSync("true"); if (s.error) throw s.error; }),
       thread: attempt(() => new Worker("1", { eval: true })),
       env: Object.keys(process.env).filter((k) => k !== "__CF_USER_TEXT_ENCODING"),
     }));`,
  );
  const flags = confinement([plan, script], 64);
  const outcome = await runBounded(pathToFileURL(script), plan, {
    maxMs: 20_000,
    maxOutputBytes: 4096,
    flags,
  });
  expect(outcome.kind).toBe("done");
  expect(JSON.parse(outcome.kind === "done" ? outcome.output : "{}")).toEqual({
    plan: "done",
    key: "ERR_ACCESS_DENIED",
    write: "ERR_ACCESS_DENIED",
    spawn: "ERR_ACCESS_DENIED",
    thread: "ERR_ACCESS_DENIED",
    env: [],
  });
});

describe("only an answer lets a plan in", () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ["a process that dies", "process.abort()", "ERR_PLAN_UNCHECKED"],
    ["a process that says nothing", "", "ERR_PLAN_UNCHECKED"],
    ["a process that says something else", 'process.stdout.write(\'{"kind":"yes"}\')', "ERR_PLAN_UNCHECKED"],
    [
      "a process that swells",
      "const all = []; for (;;) all.push(new Array(1e6).fill(Math.random()))",
      "ERR_PLAN_UNCHECKED",
    ],
    [
      "a process that talks without end",
      "const b = Buffer.alloc(1 << 16); for (;;) process.stdout.write(b)",
      "ERR_PLAN_UNCHECKED",
    ],
    [
      "a refusal",
      `process.stdout.write(JSON.stringify({ kind: "refused", code: "ERR_PLAN_ALTERED", message: "m", why: "w" }))`,
      "ERR_PLAN_ALTERED",
    ],
  ];
  test.each(cases)("%s", async (_name, program, code) => {
    expect((await refusal(() => verifyApart(instead(program), "some.hpplan", plan))).code).toBe(code);
  });

  test("a process that hangs is ended", async () => {
    const error = await refusal(() => verifyApart(instead("for (;;);", 1500), "some.hpplan", plan));
    expect([error.code, error.why]).toEqual([
      "ERR_PLAN_UNCHECKED",
      "it took longer than any plan of its size does",
    ]);
  });

  test("the answer that it holds", async () => {
    const holds = `process.stdout.write(JSON.stringify({ kind: "holds", id: "pl_1" }))`;
    await expect(verifyApart(instead(holds), "some.hpplan", plan)).resolves.toBeUndefined();
  });
});
