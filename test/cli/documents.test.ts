/** Real documents of success and failure, each held against the schema that `holdpoint schema` publishes for it. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { documentSchema, RESULTS } from "../../src/render/documents.js";
import { mkdirSync } from "node:fs";
import { jsonHere } from "../support/here.js";
import { misfits } from "../support/json-schema.js";
import { type Document, makeProject, type TestProject } from "../support/project.js";

let project: TestProject;
let plan = "";
let other = "";
let run = "";
let snapshot = "";
let open = "";

/** Runs it; its document fits its schema, and a refusal says its code, whether anything was written, and what to do. */
async function held(...args: readonly string[]): Promise<Document> {
  const document = await jsonHere(project, args);
  const name = document.schema.replace(/^holdpoint\/(.*)@1$/, "$1");
  const schema = documentSchema(name);
  expect([name, schema === undefined ? "has no schema" : misfits(schema, document)]).toEqual([name, []]);
  expect(document.ok).toBe(document.error === null && document.exit.code === 0);
  if (document.error !== null) expect(document.error.code).toMatch(/^ERR_/);
  return document;
}

const text = (document: Document, field: string): string => String(document.result[field]);

beforeAll(async () => {
  project = makeProject({ journal: "delete" });
  const file = project.write("jobs/a.sql", "UPDATE orders SET note = 'x' WHERE id < 4");
  const make = ["plan", file, "--on", "shop-prod", "--key", "keys/dana"];
  plan = text(await held(...make), "plan");
  other = text(await held(...make, "--reason", "again"), "plan");
  open = text(await held(...make, "--reason", "once more"), "plan");
  project.approve(plan);
  run = text(await held("apply", plan, "--confirm", "shop-prod"), "run");
  snapshot = text(await held("snapshot", "take", "--on", "shop-prod"), "snapshot");
});
afterAll(() => project.close());

const SUCCESSES: readonly (readonly [string, () => readonly string[]])[] = [
  ["show", () => ["show", other]],
  ["show, every row", () => ["show", other, "--rows"]],
  ["show, a question", () => ["show", other, "--sql", "SELECT op FROM orders"]],
  ["show, against", () => ["show", other, "--against", plan]],
  ["run, nothing to do", () => ["run", "jobs/a.sql", "--on", "shop-prod", "--key", "keys/dana"]],
  ["approve, prepared", () => ["approve", other, "--prepare", "p.txt", "--as", "ravi"]],
  ["reject", () => ["reject", other, "--reason", "no", "--key", "keys/ravi"]],
  ["status", () => ["status"]],
  ["status of a plan", () => ["status", plan]],
  ["hold", () => ["hold", "shop-prod", "--reason", "look"]],
  ["release", () => ["release", "shop-prod", "--reason", "looked"]],
  ["log", () => ["log"]],
  ["log show", () => ["log", "show", run]],
  ["log verify", () => ["log", "verify"]],
  ["log who", () => ["log", "who", "--on", "shop-prod", "--table", "orders", "--key", "1"]],
  ["snapshot list", () => ["snapshot", "list"]],
  ["snapshot show", () => ["snapshot", "show", snapshot]],
  ["snapshot verify", () => ["snapshot", "verify", snapshot]],
  ["snapshot diff", () => ["snapshot", "diff", snapshot]],
  ["snapshot restore", () => ["snapshot", "restore", snapshot, "--to", "restored.db"]],
  ["snapshot drill", () => ["snapshot", "drill", "--on", "shop-prod"]],
  ["snapshot prune", () => ["snapshot", "prune", snapshot]],
  ["key list", () => ["key", "list"]],
  ["key check", () => ["key", "check", "--key", "keys/dana"]],
  ["env list", () => ["env", "list"]],
  ["env check", () => ["env", "check", "shop-prod"]],
  ["explain", () => ["explain", "ERR_DRIFT_ROWS"]],
];

describe("a success", () => {
  test.each(SUCCESSES)("%s", async (_, args) => {
    const document = await held(...args());
    expect(document.error).toBeNull();
    expect(document.exit.code).toBe(0);
  });
});

const FAILURES: readonly (readonly [string, number, () => readonly string[]])[] = [
  ["a flag that there is not", 2, () => ["snapshot", "take", "--level", "all"]],
  ["a plan that does not exist", 2, () => ["show", "pl_0000000000000000"]],
  ["no answer and no terminal", 22, () => ["approve", open]],
  ["a plan that is spent", 31, () => ["apply", plan, "--confirm", "shop-prod"]],
  ["a rejected plan", 31, () => ["approve", other, "--prepare", "q.txt", "--as", "ravi"]],
  ["a target that nobody named", 2, () => ["env", "check", "nowhere"]],
  ["an undo that waits for approval", 21, () => ["undo", run, "--key", "keys/dana"]],
  ["a snapshot of nobody", 2, () => ["snapshot", "show", "sn_0000000000000000"]],
  ["nothing to prune", 2, () => ["snapshot", "prune"]],
];

describe("a failure", () => {
  test.each(FAILURES)("%s ends with %i", async (_, code, args) => {
    const document = await held(...args());
    expect(document.exit.code).toBe(code);
    expect(document.target_changed).toBe("no");
  });
});

describe("where this process cannot stand for the binary", () => {
  test("no such command: there is none to name", () => {
    const document = project.json(["pln"]);
    expect(misfits(documentSchema("holdpoint"), document)).toEqual([]);
    expect(document).toMatchObject({ result: null, target_changed: "no", exit: { code: 2 } });
  });

  test("completion gives a script, or words", () => {
    const schema = documentSchema("completion");
    expect(misfits(schema, project.json(["completion", "bash"]))).toEqual([]);
  });
});

test("init in an empty folder", async () => {
  mkdirSync(project.path("empty"));
  const around = { dir: project.path("empty") };
  const asked = ["--target", "t", "--url", "sqlite:t.db", "--environment", "staging"];
  // It lies inside of another project here; init looks at its own folder only.
  const document = await jsonHere(around, ["init", ...asked]);
  expect(misfits(documentSchema("init"), document)).toEqual([]);
  expect(document.error).toBeNull();
});

test("every published schema is an object with the envelope's fields", () => {
  for (const name of Object.keys(RESULTS)) {
    expect(documentSchema(name)).toMatchObject({
      required: ["schema", "ok", "exit", "target_changed", "result", "error", "warnings"],
    });
  }
});
