/** A person at a terminal: real keys through approve and apply, Ctrl-C included. */
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { makeProject, type TestProject } from "../support/project.js";
import { converse, type Turn } from "../support/terminal.js";

let project: TestProject;
beforeAll(() => {
  project = makeProject();
});
afterAll(() => project.close());

const at = (): { readonly cwd: string } => ({ cwd: project.dir });
const UPDATE = (note: string, id: number): string => `UPDATE orders SET note = '${note}' WHERE id = ${id}`;

/** The review of a small change: decide, the question from the card, the target's name. */
const signing = (answer: string, name = "shop-prod"): readonly Turn[] => [
  { after: "Decide: sign, reject, leave.", type: "sign\r" },
  { after: "Question", type: `${answer}\r` },
  { after: "Type the name of the target", type: `${name}\r` },
];

describe("approve", () => {
  test("shows the card, asks, and signs; the token alone stands on stdout", async () => {
    const plan = project.plan(UPDATE("typed", 1));
    const { code, screen } = await converse(["approve", plan, "--key", "keys/ravi"], signing("1"), at());
    expect(code).toBe(0);
    expect(screen).toMatch(/PRODUCTION {2}shop-prod/);
    expect(screen).toMatch(/BACK {6}undo rehearsed, 1 of 1 rows came back {2,}OK/);
    expect(screen).toMatch(
      /Signed pl_\w+ as ravi\. Token on stdout and in the ledger\. Reviewed .*0 wrong\s+answers/s,
    );
    expect(project.json(["status", plan, "--for", "approved"]).ok).toBe(true);
  });

  test("rows that go ask for a read-back first, and signing opens only after the card was there a while", async () => {
    const plan = project.plan("DELETE FROM orders WHERE id IN (4, 5, 7)");
    const again: Turn[] = [{ after: /About how many rows of orders should change\?[^>]*>/, type: "2\r" }];
    const tooSoon: Turn = { after: "Decide: sign, reject, leave.", type: "sign\r" };
    const refused: Turn = { after: "Read the card first", type: "" };
    const end: Turn = { after: "Decide: sign, reject, leave.", type: "reject\r" };
    const why: Turn = { after: "Reason", type: "rows 4, 5 and 7 stay\r" };
    const { code, screen } = await converse(
      ["approve", plan, "--key", "keys/ravi"],
      [...again, tooSoon, refused, end, why],
      at(),
    );
    expect(code).toBe(0);
    expect(screen.indexOf("About how many")).toBeLessThan(screen.indexOf("WHERE "));
    expect(screen).toMatch(/you said 1-9/);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"])).toMatchObject({ exit: { code: 31 } });
  });

  test("a wrong answer leads back to the line; a second one ends without a signature", async () => {
    const plan = project.plan(UPDATE("wrong", 2));
    const turns: Turn[] = [
      { after: "Decide: sign, reject, leave.", type: "sign\r" },
      { after: "Question", type: "77\r" },
      { after: "Look at the line", type: "" },
      { after: "Question", type: "78\r" },
    ];
    const { code, screen } = await converse(["approve", plan, "--key", "keys/ravi"], turns, at());
    expect(code).toBe(130);
    expect(screen).toMatch(/the review ended without a signature/);
    expect(screen).toMatch(/Nothing was signed/);
    expect(project.json(["status", plan, "--for", "approved"])).toMatchObject({ exit: { code: 21 } });
  });

  test("another target's name ends without a signature", async () => {
    const plan = project.plan(UPDATE("name", 3));
    const { code } = await converse(["approve", plan, "--key", "keys/ravi"], signing("1", "shop-dev"), at());
    expect(code).toBe(130);
  });

  test("Ctrl-C at the question leaves the plan as it was", async () => {
    const plan = project.plan(UPDATE("left", 8));
    const turns: Turn[] = [{ after: "Decide: sign, reject, leave.", type: "\u0003" }];
    const { code, screen } = await converse(["approve", plan, "--key", "keys/ravi"], turns, at());
    expect(code).toBe(130);
    expect(screen).toMatch(/Nothing was/);
    expect(project.json(["status", plan, "--for", "approved"])).toMatchObject({ exit: { code: 21 } });
  });

  test.each([
    ["CI=1", { CI: "1" }, 22],
    ["TERM=dumb", { TERM: "dumb" }, 0],
    ["NO_COLOR=1", { NO_COLOR: "1" }, 0],
  ])("with %s", async (_, env, code) => {
    const plan = project.plan(UPDATE("form", 9));
    const turns = code === 22 ? [] : signing("1");
    const done = await converse(["approve", plan, "--key", "keys/ravi"], turns, { ...at(), env });
    expect(done.code).toBe(code);
    // oxlint-disable-next-line no-control-regex -- colour is what is looked for
    if (code === 0) expect(done.raw).not.toMatch(/\u001b\[[0-9;]*m\S*PRODUCTION/);
  });
});

describe("apply", () => {
  const approved = (note: string, id: number): string => {
    const plan = project.plan(UPDATE(note, id));
    project.approve(plan);
    return plan;
  };
  const noteOf = (id: number): unknown => project.rows(`SELECT note FROM orders WHERE id = ${id}`);

  test("asks for the target's name and writes", async () => {
    const plan = approved("applied", 11);
    const turns: Turn[] = [{ after: "Type the target's name to start:", type: "shop-prod\r" }];
    const { code, screen } = await converse(["apply", plan], turns, at());
    expect(code).toBe(0);
    expect(screen).toMatch(/1 row changed as planned/);
    // Where we are stands right above the line that is typed, and who approved it beside it.
    expect(screen).toMatch(/PRODUCTION +shop-prod +approved by ravi\n[^\n]*Type the target's name/);
    expect(noteOf(11)).toEqual([{ note: "applied" }]);
  });

  test("another name writes nothing", async () => {
    const plan = approved("slip", 12);
    const turns: Turn[] = [{ after: "Type the target's name to start:", type: "shop\r" }];
    const { code, screen } = await converse(["apply", plan], turns, at());
    expect(code).toBe(2);
    expect(screen).toMatch(/Nothing was written/);
    expect(noteOf(12)).toEqual([{ note: null }]);
  });

  test("Ctrl-C at the question writes nothing, and the plan is applied later", async () => {
    const plan = approved("later", 13);
    const turns: Turn[] = [{ after: "Type the target's name to start:", type: "\u0003" }];
    const { code } = await converse(["apply", plan], turns, at());
    expect(code).toBe(130);
    expect(noteOf(13)).toEqual([{ note: null }]);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).ok).toBe(true);
  });
});

describe("init", () => {
  test("asks for the first target and who may sign, and leads to the first plan", async () => {
    const turns: Turn[] = [
      { after: "Name of the first target:", type: "elb\r" },
      { after: "Its url", type: "sqlite:../shop.db\r" },
      { after: "Who may sign", type: "dana=../keys/dana.pub\r" },
      // A line is drawn again with each key: the next question is the one after the line has ended.
      { after: /dana\.pub *\n[^]*Who may sign/, type: "\r" },
    ];
    project.write("keys/.keep", "");
    const cwd = project.path("keys");
    const { code, screen } = await converse(["init"], turns, { cwd });
    expect(code).toBe(0);
    expect(screen).toMatch(/holdpoint plan hello --on elb +your first plan, 0 rows/);
    expect(project.read("keys/people/allowed_signers")).toMatch(/^dana namespaces=/m);
  });
});
