/** S35: the guard itself is broken. Whatever part of it, apply fails closed, says why, and a mended guard lets the same plan through. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { mkdirSync, renameSync, rmSync } from "node:fs";
import { makeProject, type TestProject } from "../support/project.js";

/** Shifts the clock of a process that is started with it. */
const CLOCK = `
const Real = Date;
const shift = Number(process.env.SHIFT_MS);
globalThis.Date = class extends Real {
  constructor(...args) { if (args.length === 0) super(Real.now() + shift); else super(...args); }
  static now() { return Real.now() + shift; }
};
`;

let project: TestProject;
let plan: string;
let before: string;

beforeAll(() => {
  project = makeProject();
  project.write("clock.mjs", CLOCK);
  plan = project.plan("UPDATE orders SET status = 'held' WHERE id <= 10;");
  project.approve(plan);
  before = project.dump();
});

afterAll(() => project.close());

const apply = (env: Readonly<Record<string, string>> = {}): readonly [number, string | undefined] => {
  const done = project.json(["apply", plan, "--confirm", "shop-prod"], { env });
  expect([done.target_changed, project.dump() === before]).toEqual(["no", true]);
  return [done.exit.code, done.error?.code];
};

describe("a policy", () => {
  const POLICY = "policies/production.yaml";
  const broken: readonly (readonly [string, (text: string) => string | Uint8Array, number, string])[] = [
    ["that is not YAML", (t) => `${t}\n  - }{`, 2, "ERR_POLICY_INVALID"],
    ["with a mistyped key", (t) => t.replace("rules:", "ruels:"), 2, "ERR_POLICY_INVALID"],
    [
      "with a condition that has no type",
      (t) => t.replace("rows.total > 0 ||", "rows.totl > 0 ||"),
      2,
      "ERR_POLICY_INVALID",
    ],
    ["with a milder rule", (t) => t.replace("> 0.25", "> 0.95"), 30, "ERR_TRUST_BUNDLE"],
    ["that is empty", () => "", 2, "ERR_POLICY_INVALID"],
  ];
  test.each(broken)("%s", (_name, spoil, exit, code) => {
    const text = project.read(POLICY);
    project.write(POLICY, String(spoil(text)));
    try {
      expect(apply()).toEqual([exit, code]);
    } finally {
      project.write(POLICY, text);
    }
  });

  test("that cannot be read", () => {
    const path = project.path(POLICY);
    renameSync(path, `${path}.away`);
    mkdirSync(path);
    try {
      expect(apply()).toEqual([2, "ERR_POLICY_INVALID"]);
    } finally {
      rmSync(path, { recursive: true });
      renameSync(`${path}.away`, path);
    }
  });

  test("that is gone", () => {
    const path = project.path(POLICY);
    renameSync(path, project.path("away.yaml"));
    try {
      expect(apply()).toEqual([30, "ERR_TRUST_BUNDLE"]);
    } finally {
      renameSync(project.path("away.yaml"), path);
    }
  });

  test("that is mistyped is what doctor finds", () => {
    const text = project.read(POLICY);
    project.write(POLICY, text.replace("rules:", "ruels:"));
    try {
      const found = project.json(["doctor"]);
      expect([found.exit.code, found.error?.code]).toEqual([2, "ERR_SETUP_UNSAFE"]);
      expect(found.result["findings"]).toContainEqual(
        expect.objectContaining({ check: "policies", level: "stop" }),
      );
    } finally {
      project.write(POLICY, text);
    }
  });
});

describe("people", () => {
  test.each([
    ["a group of nobody", "people/groups.yaml", () => "groups:\n  dba: []\n"],
    [
      "a line without namespaces",
      "people/allowed_signers",
      (t: string) => t.replace(/namespaces="[^"]*" /, ""),
    ],
  ])("%s", (_name, file, spoil) => {
    const text = project.read(file);
    project.write(file, spoil(text));
    try {
      expect(apply()).toEqual([2, "ERR_PEOPLE_INVALID"]);
    } finally {
      project.write(file, text);
    }
  });
});

describe("the marker", () => {
  test("is missing", () => {
    project.raw("ALTER TABLE holdpoint_marker RENAME TO away");
    try {
      const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
      expect([done.exit.code, done.target_changed]).toEqual([33, "no"]);
      expect(project.rows("SELECT count(*) AS n FROM orders WHERE status = 'held'")).toEqual([{ n: 0 }]);
    } finally {
      project.raw("ALTER TABLE away RENAME TO holdpoint_marker");
    }
  });
});

describe("the clock", () => {
  const preload = { NODE_OPTIONS: "--import=./clock.mjs" };
  test("was set back by two days", () => {
    const [exit] = apply({ ...preload, SHIFT_MS: String(-2 * 86_400_000) });
    expect(exit).toBe(31);
  });

  test("is ahead of the plan's and the approval's end", () => {
    const [exit] = apply({ ...preload, SHIFT_MS: String(3 * 86_400_000) });
    expect(exit).toBe(31);
  });
});

test("mended, the same plan is applied under the same approval", () => {
  const done = project.json(["apply", plan, "--confirm", "shop-prod"]);
  expect([done.exit.code, done.target_changed]).toEqual([0, "yes"]);
  expect(project.rows("SELECT count(*) AS n FROM orders WHERE status = 'held'")).toEqual([{ n: 10 }]);
  expect(project.json(["log", "verify"]).ok).toBe(true);
});
