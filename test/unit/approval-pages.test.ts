/** Format pages, frozen vectors, and the page that checks a token without holdpoint. */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parseAllowedSigners } from "../../src/approval/allowed-signers.js";
import { bundleBytes, parseBundle, peopleOfBundle } from "../../src/approval/bundle.js";
import { countApprovals } from "../../src/approval/count.js";
import { people } from "../../src/approval/people.js";
import {
  parsePlanStatement,
  planDigest,
  planId,
  planStatementBytes,
} from "../../src/approval/plan-statement-codec.js";
import { approvalBytes, parseApproval, parseToken, tokenText } from "../../src/approval/token.js";
import { keygenVerifies, makeFolder, removeFolder } from "../support/ssh.js";
import { armor } from "../../src/approval/sshsig.js";
import { wireUint32 } from "../../src/approval/ssh-wire.js";

const ROOT = rootOf(dirname(fileURLToPath(import.meta.url)));
const VECTORS = join(ROOT, "test", "vectors", "approval-1");

/** The project's folder, from wherever the tests were built to. */
function rootOf(folder: string): string {
  return existsSync(join(folder, "package.json")) ? folder : rootOf(dirname(folder));
}

function page(name: string): string {
  return readFileSync(join(ROOT, "docs", name), "utf8");
}

/** The fenced blocks of a language, in order. */
function blocks(text: string, language: string): readonly string[] {
  return [...text.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter((m) => m[1] === language)
    .map((m) => m[2] ?? "");
}

const vector = (name: string): Buffer => readFileSync(join(VECTORS, name));
const tokens: string[] = readdirSync(VECTORS)
  .filter((n) => n.endsWith(".hpa"))
  .map((n) => n.slice(0, -".hpa".length));

describe("vectors of approval version 1", () => {
  const signers = vector("allowed_signers").toString("utf8");
  const list = people(parseAllowedSigners(signers, "allowed_signers"), {});
  const statement = parsePlanStatement(vector("plan-statement.json"));
  let folder: string;
  beforeAll(() => {
    folder = makeFolder();
  });
  afterAll(() => removeFolder(folder));

  test("the plan's statement, its digest and id", () => {
    const bytes = vector("plan-statement.json");
    expect(Buffer.from(planStatementBytes(statement)).equals(bytes)).toBe(true);
    const [digest, id] = (blocks(page("formats/plan.md"), "text")[0] ?? "").trim().split("\n");
    expect([planDigest(bytes), planId(planDigest(bytes))]).toEqual([digest, id]);
    expect(blocks(page("formats/plan.md"), "json")[0]?.trim()).toBe(bytes.toString("utf8"));
  });

  test.each(tokens)("%s: the token, its statement, and that it counts", (name: string) => {
    const token = parseToken(vector(`${name}.hpa`).toString("latin1"));
    expect(Buffer.from(token.bytes).equals(vector(`${name}.txt`))).toBe(true);
    expect(Buffer.from(approvalBytes(token.statement)).equals(vector(`${name}.txt`))).toBe(true);
    expect(`${tokenText(token.bytes, token.signature)}\n`).toBe(vector(`${name}.hpa`).toString("latin1"));
    const digest = planDigest(vector("plan-statement.json"));
    const count = countApprovals({
      requirement: {
        slots: [{ people: 1, groups: [], rule: "r" }],
        touch: false,
        reviewedInTool: true,
        reason: false,
      },
      plan: {
        id: planId(digest),
        digest,
        target: statement.target.name,
        identity: statement.target.identity,
        inserts: 0,
        updates: 0,
        deletes: statement.changeset.rows,
        tables: statement.changeset.tables.length,
      },
      tokens: [token],
      people: list,
      requesters: ["dana@shop.example"],
      requesterKeys: [],
      now: new Date("2026-11-24T15:00:00Z"),
      spentNonces: new Set(),
      revokedNonces: new Set(),
      rejectedBy: null,
      environment: "production",
    });
    expect(count).toMatchObject({ satisfied: true, counted: [{ person: `${name}@shop.example` }] });
    const check = { folder, signers, person: `${name}@shop.example`, namespace: "holdpoint-approval" };
    expect(keygenVerifies({ ...check, bytes: token.bytes, armored: armor(token.signature) })).toBe(true);
  });

  test("the examples on the pages are the vectors", () => {
    const [statementText, tokenLine] = blocks(page("formats/token.md"), "text");
    expect(statementText).toBe(vector("ravi.txt").toString("utf8"));
    expect(tokenLine).toBe(vector("ravi.hpa").toString("latin1"));
    const bundle = Buffer.from((blocks(page("formats/bundle.md"), "json")[0] ?? "").trim(), "utf8");
    expect(Buffer.from(bundleBytes(parseBundle(bundle))).equals(bundle)).toBe(true);
    expect(peopleOfBundle(parseBundle(bundle)).map((p) => p.name)).toEqual(["ravi@shop.example"]);
  });

  test("every field has its row on the page", () => {
    const names = vector("ravi.txt")
      .toString("utf8")
      .split("\n")
      .slice(1, -1)
      .map((l) => l.split(": ")[0]);
    for (const name of names) expect(page("formats/token.md")).toContain(`\`${name}\``);
    for (const name of Object.keys(statement))
      expect(page("formats/plan.md")).toMatch(new RegExp(`^\\|.*\`${name}[.\\[\`]`, "m"));
    expect(parseApproval(vector("ravi.txt")).format).toBe("holdpoint-approval/1");
  });
});

describe("verify-a-token.md", () => {
  let folder: string;
  beforeAll(() => {
    folder = makeFolder();
  });
  afterAll(() => removeFolder(folder));

  /** Runs the page's commands as one script; the rows behind the statement do not matter to it. */
  function run(change: { readonly token?: string; readonly plan?: Buffer } = {}): {
    readonly status: number | null;
    readonly output: string;
  } {
    const plan = change.plan ?? vector("plan-statement.json");
    copyFileSync(join(VECTORS, "allowed_signers"), join(folder, "allowed_signers"));
    writeFileSync(join(folder, "token.txt"), change.token ?? vector("ravi.hpa"));
    const head = Buffer.concat([Buffer.from("holdpoint-plan/1\n"), wireUint32(plan.length), plan]);
    writeFileSync(join(folder, "plan.hpplan"), Buffer.concat([head, Buffer.from("the rest")]));
    const script = blocks(page("verify-a-token.md"), "sh").join("\n");
    const result = spawnSync("sh", ["-eu", "-c", script], { cwd: folder, encoding: "utf8" });
    return { status: result.status, output: result.stdout };
  }

  test.each(tokens)("%s's token is found good", (name: string) => {
    const { status, output } = run({ token: vector(`${name}.hpa`).toString("latin1") });
    expect(output).toContain(`Good "holdpoint-approval" signature for ${name}@shop.example`);
    expect(output).toContain(`the token is for this plan: ${planDigest(vector("plan-statement.json"))}`);
    expect(output).toContain(vector(`${name}.txt`).toString("utf8"));
    expect(status).toBe(0);
  });

  test("a token wrapped by a chat is found good", () => {
    const token = vector("ravi.hpa")
      .toString("latin1")
      .replace(/(.{60})/g, "$1\r\n  ");
    expect(run({ token }).status).toBe(0);
  });

  test("an altered token, another person's signature and another plan are found bad", () => {
    const token = vector("ravi.hpa").toString("latin1");
    const other = vector("mona.hpa").toString("latin1");
    expect(run({ token: token.replace("LXByb2Q", "LXByb3Q") }).status).not.toBe(0);
    expect(
      run({ token: `${token.slice(0, token.lastIndexOf("."))}.${other.split(".")[2]}` }).status,
    ).not.toBe(0);
    const { status, output } = run({ plan: Buffer.from("{}") });
    expect([status === 0, output.includes("the token is for this plan")]).toEqual([false, false]);
  });
});
