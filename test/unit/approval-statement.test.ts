/** Statements to sign: one spelling, every altered byte refused, people counted and never signatures. */
import fc from "../support/fast-check.js";
import { describe, expect, test } from "@jest/globals";
import { NAMESPACES } from "../../src/approval/requirement.js";
import {
  countSigners,
  makeStatement,
  parseStatement,
  signerOf,
  type Statement,
  statementBytes,
} from "../../src/approval/statement.js";
import { NOW, person, signerKey, testKey } from "../support/approvals.js";

const made = (change: Partial<Parameters<typeof makeStatement>[0]> = {}): Statement =>
  makeStatement({
    act: "change-trust",
    target: "shop-prod",
    identity: "sqlite:8f1c",
    from: "sha256:a",
    to: "sha256:b",
    now: NOW,
    ttlSeconds: 3600,
    nonce: Buffer.alloc(16, 7),
    changes: ["+ person eve may sign", '~ guarding environment: "production" → "staging"'],
    ...change,
  });

const malformed = expect.objectContaining({ code: "ERR_STATEMENT_MALFORMED" });

describe("a statement's bytes", () => {
  test("are readable lines, one for each change", () => {
    expect(Buffer.from(statementBytes(made())).toString("utf8")).toBe(
      [
        "holdpoint statement",
        "format: holdpoint-statement/1",
        "act: change-trust",
        "target: shop-prod",
        "identity: sqlite:8f1c",
        "subject: -",
        "from: sha256:a",
        "to: sha256:b",
        "by: -",
        "made-at: 2026-11-24T14:38:44Z",
        "expires-at: 2026-11-24T15:38:44Z",
        "nonce: 07070707070707070707070707070707",
        "reason: -",
        "change: + person eve may sign",
        'change: ~ guarding environment: "production" → "staging"',
        "",
      ].join("\n"),
    );
  });

  test("read back as what they were made from", () => {
    const line = fc
      .string({ unit: "grapheme", minLength: 1 })
      .map((s) => s.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu, "x").trim() || "x");
    fc.assert(
      fc.property(line, line, fc.array(line, { maxLength: 5 }), (target, reason, changes) => {
        const s = made({ target, reason, changes });
        expect(parseStatement(statementBytes(s))).toEqual(s);
      }),
    );
  });

  test("with one byte altered are refused, or signed by nobody", () => {
    const key = testKey();
    const bytes = statementBytes(made());
    const signature = key.sign(NAMESPACES.trust, bytes);
    const people = [person("dana", [key])];
    expect(signerOf(people, { bytes, act: "change-trust" }, signature, NOW).ok).toBe(true);
    for (const [at, byte] of bytes.entries()) {
      const altered = Buffer.from(bytes);
      altered[at] = byte ^ 1;
      expect({
        at,
        ok: signerOf(people, { bytes: altered, act: "change-trust" }, signature, NOW).ok,
      }).toEqual({ at, ok: false });
    }
  });

  test.each([
    ["nothing", ""],
    ["another title", "holdpoint approval\n"],
    [
      "a line missing",
      Buffer.from(statementBytes(made()))
        .toString()
        .replace(/subject.*\n/, ""),
    ],
    [
      "lines swapped",
      Buffer.from(statementBytes(made()))
        .toString()
        .replace(/(from.*\n)(to.*\n)/, "$2$1"),
    ],
    ["no line feed at the end", Buffer.from(statementBytes(made())).toString().trimEnd()],
    ["another act", Buffer.from(statementBytes(made())).toString().replace("change-trust", "approve")],
    [
      "a time that is none",
      Buffer.from(statementBytes(made())).toString().replace("2026-11-24T14", "2026-13-24T14"),
    ],
    ["a carriage return", Buffer.from(statementBytes(made())).toString().replace("shop-prod", "shop\r-prod")],
    [
      "a direction override",
      Buffer.from(statementBytes(made())).toString().replace("shop-prod", "shop\u202e-prod"),
    ],
    ["a line after the changes", `${Buffer.from(statementBytes(made())).toString()}more: x\n`],
  ])("refused: %s", (_, text) => {
    expect(() => parseStatement(Buffer.from(text))).toThrow(malformed);
  });

  test("refused when it would expire before it is made", () => {
    expect(() => statementBytes(made({ ttlSeconds: 0 }))).toThrow(malformed);
  });

  test("truncated anywhere before the changes are refused", () => {
    const bytes = statementBytes(made({ changes: [] }));
    for (let length = 0; length < bytes.length; length++) {
      expect(() => parseStatement(bytes.subarray(0, length))).toThrow(malformed);
    }
  });
});

describe("counting signers", () => {
  const [dana, ravi, eve] = [testKey(), testKey(), testKey()];
  const people = [person("dana", [dana], ["leads"]), person("ravi", [ravi])];
  const bytes = statementBytes(made());
  const count = (signatures: readonly Uint8Array[], groups: readonly string[] = [], list = people) =>
    countSigners(list, { bytes, act: "change-trust" }, signatures, { now: NOW, groups });
  const by = (key: typeof dana, namespace: string = NAMESPACES.trust): Uint8Array =>
    key.sign(namespace, bytes);

  test("two people are two", () => {
    expect(count([by(dana), by(ravi)])).toEqual({ people: ["dana", "ravi"], worthless: [] });
  });

  test.each([
    ["one person twice", () => [by(dana), by(dana)]],
    ["a stranger beside one", () => [by(dana), by(eve)]],
    ["a signature for another purpose", () => [by(dana), by(ravi, NAMESPACES.approval)]],
    ["bytes that are no signature", () => [by(dana), Buffer.from("nothing")]],
  ])("%s is one", (_, signatures) => {
    const counted = count(signatures());
    expect(counted.people).toEqual(["dana"]);
    expect(counted.worthless).toHaveLength(1);
  });

  test("only members of the groups that are asked for count", () => {
    expect(count([by(dana), by(ravi)], ["leads"]).people).toEqual(["dana"]);
  });

  test("a key that may not sign changes of trust, or whose time is over, counts for nobody", () => {
    const plain = [
      { name: "ravi", groups: [], keys: [signerKey(ravi, { namespaces: [NAMESPACES.approval] })] },
    ];
    expect(count([by(ravi)], [], plain).people).toEqual([]);
    const old = [
      { name: "ravi", groups: [], keys: [signerKey(ravi, { validBefore: "2020-01-01T00:00:00Z" })] },
    ];
    expect(count([by(ravi)], [], old).people).toEqual([]);
  });
});
