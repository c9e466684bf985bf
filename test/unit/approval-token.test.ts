import { describe, expect, test } from "@jest/globals";
import { verifySshsig } from "../../src/approval/sshsig.js";
import {
  approvalBytes,
  coverSeconds,
  makeApproval,
  parseApproval,
  parseToken,
  splitTokens,
  tokenText,
} from "../../src/approval/token.js";
import { HoldpointError } from "../../src/base/errors.js";
import { NOW, PLAN, statement, testKey, token } from "../support/approvals.js";

const MALFORMED = expect.objectContaining({ code: "ERR_APPROVAL_MALFORMED" });
const KEY = testKey();
const TOKEN = token(KEY, statement("ravi@shop.example", { reason: "tallied with OPS-4412" }));

/** Whether a text is worth anything: it parses, and its signature is good. */
function worthSomething(text: string): boolean {
  try {
    const t = parseToken(text);
    return verifySshsig({ bytes: t.bytes, signature: t.signature, namespace: "holdpoint-approval" }).ok;
  } catch (e) {
    if (e instanceof HoldpointError && e.code === "ERR_APPROVAL_MALFORMED") return false;
    throw e;
  }
}

describe("the statement's bytes", () => {
  test("are lines of plain text, in this order", () => {
    const s = statement("ravi@shop.example", {
      nonce: "0".repeat(31) + "7",
      coverUndo: "2d",
      reason: "tallied",
    });
    expect(Buffer.from(approvalBytes(s)).toString("utf8").split("\n")).toEqual([
      "holdpoint approval",
      "format: holdpoint-approval/1",
      "act: approve",
      `plan: ${PLAN.id}`,
      `plan-digest: ${PLAN.digest}`,
      "target: elb-prod",
      "environment: production",
      "identity: sqlite:8f1c2b3a4d5e6f708192a3b4c5d6e7f8",
      "inserts: 0",
      "updates: 118",
      "deletes: 2414",
      "tables: 2",
      "approver: ravi@shop.example",
      "issued-at: 2026-11-24T14:37:44Z",
      "expires-at: 2026-11-24T18:37:44Z",
      "nonce: 00000000000000000000000000000007",
      `ledger-head: ${s.ledgerHead}`,
      "reviewed: in-tool 1m52s",
      "cover-undo: 2d",
      "reason: tallied",
      "",
    ]);
  });

  test("come back as the same statement", () => {
    const s = statement("ravi", { reason: "Größe geprüft: 12 €", coverUndo: "1d12h" });
    expect(parseApproval(approvalBytes(s))).toEqual(s);
    expect(coverSeconds(s)).toBe(129_600);
    expect(coverSeconds(statement("ravi"))).toBeNull();
  });

  test.each([
    ["a line feed", { reason: "a\nact: approve" }],
    ["a carriage return", { reason: "all good\rreason: none" }],
    ["an escape sequence", { reason: "\u001b[2K" }],
    ["a direction override", { reason: "only \u202e4142 rows" }],
    ["an invisible character", { approver: "ra\u200bvi" }],
    ["a line separator", { target: "a\u2028b" }],
    ["a lone surrogate", { reason: "\ud800" }],
    ["nothing", { reason: "" }],
    ["spaces around", { target: " elb-prod" }],
    ["a short plan id", { plan: "pl_0" }],
    ["a fraction", { inserts: 1.5 }],
    ["a negative count", { deletes: -1 }],
    ["a number that is not exact", { updates: 2 ** 53 }],
    ["a short nonce", { nonce: "00" }],
    ["a time with a zone", { issuedAt: "2026-11-24T14:37:44+00:00" }],
    ["a day that does not exist", { issuedAt: "2026-02-30T00:00:00Z" }],
    ["an expiry before the issue", { expiresAt: "2026-11-24T14:37:44Z" }],
    ["a cover that is not in shortest words", { coverUndo: "120m" }],
    ["a review in other words", { reviewed: "thoroughly" }],
    ["a reason of five thousand characters", { reason: "x".repeat(5000) }],
  ])("with %s are not made", (_, change) => {
    expect(() => approvalBytes(statement("ravi", change))).toThrow(MALFORMED);
  });

  const text = Buffer.from(TOKEN.bytes).toString("utf8");
  test.each([
    ["no final line feed", text.slice(0, -1)],
    ["one line feed more", `${text}\n`],
    ["CRLF", text.replace(/\n/g, "\r\n")],
    ["a byte order mark", `\ufeff${text}`],
    ["another title", text.replace("holdpoint approval", "holdpoint Approval")],
    ["another version", text.replace("holdpoint-approval/1", "holdpoint-approval/2")],
    ["two lines swapped", text.replace(/(inserts: 0)\n(updates: 118)/, "$2\n$1")],
    ["a line twice", text.replace("inserts: 0\n", "inserts: 0\ninserts: 0\n")],
    ["a line missing", text.replace("inserts: 0\n", "")],
    ["a leading zero", text.replace("inserts: 0", "inserts: 00")],
    ["two spaces", text.replace("inserts: 0", "inserts:  0")],
    ["an exponent", text.replace("inserts: 0", "inserts: 0e0")],
    ["another act", text.replace("act: approve", "act: approved")],
  ])("with %s are not read", (_, altered) => {
    expect(() => parseApproval(Buffer.from(altered, "utf8"))).toThrow(MALFORMED);
  });

  test("that are not UTF-8, or too many, are not read", () => {
    const invalid = Buffer.concat([TOKEN.bytes.subarray(0, -2), Buffer.from([0xff, 0x0a])]);
    expect(() => parseApproval(invalid)).toThrow(MALFORMED);
    expect(() => parseApproval(Buffer.alloc(5000, 0x20))).toThrow(MALFORMED);
  });

  test("an unpinned target, no ledger, no review and no reason have their words", () => {
    const s = makeApproval({
      act: "break-glass",
      plan: { ...PLAN, identity: null },
      environment: "unproven",
      approver: "ravi",
      now: NOW,
      ttlSeconds: 900,
      nonce: Buffer.alloc(16, 1),
      ledgerHead: null,
      reviewedSeconds: null,
      coverUndoSeconds: 3600,
      reason: null,
    });
    expect(s).toMatchObject({
      identity: "none",
      ledgerHead: "none",
      reviewed: "elsewhere",
      coverUndo: "1h",
      reason: "-",
    });
    expect(parseApproval(approvalBytes(s))).toEqual(s);
  });
});

describe("the token's text", () => {
  test("comes back as the same bytes and fits an environment variable", () => {
    expect(parseToken(TOKEN.text)).toEqual(TOKEN);
    expect(tokenText(TOKEN.bytes, TOKEN.signature)).toBe(TOKEN.text);
    expect(TOKEN.text).toMatch(/^hpa1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/);
    expect(TOKEN.text.length).toBeLessThan(1200);
  });

  test("survives white space and wrapped lines, as chats make them", () => {
    const wrapped = TOKEN.text.replace(/(.{72})/g, "$1\n  ");
    expect(parseToken(`\n\t ${wrapped.replace(/\n/g, "\r\n")} \n`)).toEqual(TOKEN);
  });

  test("every byte flipped, every bit of it, is worth nothing", () => {
    for (let i = 0; i < TOKEN.text.length; i++) {
      for (let bit = 1; bit < 256; bit *= 2) {
        const altered = Buffer.from(TOKEN.text, "latin1");
        altered[i] = (altered[i] ?? 0) ^ bit;
        expect([i, bit, worthSomething(altered.toString("latin1"))]).toEqual([i, bit, false]);
      }
    }
  });

  test("every truncation, from either end, is worth nothing", () => {
    for (let i = 1; i < TOKEN.text.length; i++) {
      expect([i, worthSomething(TOKEN.text.slice(0, i))]).toEqual([i, false]);
      expect([i, worthSomething(TOKEN.text.slice(i))]).toEqual([i, false]);
    }
  });

  test.each([
    ["nothing", ""],
    ["quoted", `> ${TOKEN.text}`],
    ["a fourth part", `${TOKEN.text}.AAAA`],
    ["padding", `${TOKEN.text}=`],
    ["another mark", TOKEN.text.replace("hpa1", "hpa2")],
    ["seventy thousand characters", "hpa1.".padEnd(70_000, "A")],
  ])("%s is refused", (_, text) => {
    expect(() => parseToken(text)).toThrow(MALFORMED);
  });

  test("several in one text come apart", () => {
    const second = token(KEY, statement("mona")).text;
    expect(splitTokens(` ${TOKEN.text}\n${second} \n`)).toEqual([TOKEN.text, second]);
    const wrapped = TOKEN.text.replace(/(.{72})/g, "$1\n");
    expect(splitTokens(`${wrapped}\n${second}`).map((t) => parseToken(t).text)).toEqual([TOKEN.text, second]);
    expect(splitTokens("  ")).toEqual([]);
  });
});
