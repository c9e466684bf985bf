import { describe, expect, test } from "@jest/globals";
import {
  parsePlanStatement,
  planDigest,
  planId,
  planStatementBytes,
} from "../../src/approval/plan-statement-codec.js";
import type { PlanStatement } from "../../src/approval/plan-statement.js";
import { verifySshsig } from "../../src/approval/sshsig.js";
import { digestOf } from "../../src/base/digest.js";
import { HoldpointError } from "../../src/base/errors.js";
import { testKey } from "../support/approvals.js";
import { planStatement } from "../support/plan-statement.js";

const ALTERED = expect.objectContaining({ code: "ERR_PLAN_ALTERED" });
const STATEMENT = planStatement();
const BYTES = planStatementBytes(STATEMENT);
const TEXT = Buffer.from(BYTES).toString("utf8");

describe("a plan statement", () => {
  test("comes back as the same statement", () => {
    expect(parsePlanStatement(BYTES)).toEqual(STATEMENT);
    const undo: PlanStatement = {
      ...STATEMENT,
      job: null,
      from: {
        kind: "undo",
        runs: ["rn_0123456789abcdef"],
        plans: [digestOf("a")],
        snapshot: null,
        manifest: null,
        counts: { put_back: 1, merged: 2, nothing_to_do: 3, conflict: 0 },
        clean: true,
      },
      ledger: { id: "lg_0123456789abcdef", head: digestOf("head") },
      waves: ["1%", "100%"],
      pace: { max_rows_per_second: 500 },
    };
    expect(parsePlanStatement(planStatementBytes(undo))).toEqual(undo);
  });

  test("has an id from its digest", () => {
    const digest = planDigest(BYTES);
    expect(digest).toBe(digestOf(BYTES));
    expect(planId(digest)).toMatch(/^pl_[0-9a-z]{16}$/);
    expect(planId(digest)).not.toBe(
      planId(planDigest(planStatementBytes({ ...STATEMENT, nonce: "1".repeat(32) }))),
    );
  });

  test("that could not be read back is never made", () => {
    expect(() => planStatementBytes({ ...STATEMENT, nonce: "short" })).toThrow(
      expect.objectContaining({ code: "ERR_INTERNAL", why: expect.stringContaining("$.nonce") }),
    );
  });

  test.each<[string, (text: string) => string]>([
    ["a space", (t) => t.replace(":", ": ")],
    ["a line feed at the end", (t) => `${t}\n`],
    ["a byte order mark", (t) => `\ufeff${t}`],
    ["a field twice", (t) => t.replace('{"bundle"', '{"bundle":"x","bundle"')],
    ["an unknown field", (t) => t.replace('{"bundle"', '{"breakglass":true,"bundle"')],
    ["an unknown field inside", (t) => t.replace('"level":"rows"', '"kept":false,"level":"rows"')],
    ["a field missing", (t) => t.replace(/"decision":"[a-z-]+",/, "")],
    ["another version", (t) => t.replace("holdpoint-plan/1", "holdpoint-plan/2")],
    ["another mode", (t) => t.replace('"mode":"rows"', '"mode":"both"')],
    ["a count below zero", (t) => t.replace('"lock_ms":12', '"lock_ms":-12')],
    ["a fraction", (t) => t.replace('"lock_ms":12', '"lock_ms":1.5')],
    ["another spelling of a number", (t) => t.replace('"lock_ms":12', '"lock_ms":1.2e1')],
    ["a number as text", (t) => t.replace('"lock_ms":12', '"lock_ms":"12"')],
    [
      "a digest in capitals",
      (t) => t.replace(/"bundle":"sha256:[0-9a-f]+"/, `"bundle":"sha256:${"A".repeat(64)}"`),
    ],
    ["an escape where none is needed", (t) => t.replace("purge-idle", "purge\\u002didle")],
    ["a time without seconds", (t) => t.replace(/"created_at":"[^"]+"/, '"created_at":"2026-11-24T14:38Z"')],
    ["null for an object", (t) => t.replace('"snapshot":{"level":"rows"}', '"snapshot":null')],
    ["an array around it", (t) => `[${t}]`],
    ["nothing", () => ""],
    ["deep nesting", () => `${"[".repeat(200_000)}${"]".repeat(200_000)}`],
  ])("with %s is refused", (_, alter) => {
    const altered = alter(TEXT);
    expect(altered).not.toBe(TEXT);
    expect(() => parsePlanStatement(Buffer.from(altered, "utf8"))).toThrow(ALTERED);
  });

  test("names the path of what is wrong", () => {
    const altered = Buffer.from(TEXT.replace('"level":"rows"', '"level":"some"'));
    expect(() => parsePlanStatement(altered)).toThrow(
      expect.objectContaining({
        why: '$.snapshot.level must be "rows" or "tables" or "database", found "some"',
      }),
    );
  });

  test("a plan whose signed decision says allow: the claim is one field among others, and is covered", () => {
    const claimed = planStatementBytes({ ...STATEMENT, decision: "allow" });
    expect(planDigest(claimed)).not.toBe(planDigest(BYTES));
  });

  test("every byte flipped is refused: by its form, its digest and its signature", () => {
    const key = testKey();
    const signature = key.sign("holdpoint-plan", BYTES);
    const digest = planDigest(BYTES);
    let read = 0;
    for (let i = 0; i < BYTES.length; i++) {
      const altered = Buffer.from(BYTES);
      altered[i] = (altered[i] ?? 0) ^ (1 << (i % 8));
      if (!refused(altered)) read += 1;
      expect([i, planDigest(altered) === digest]).toEqual([i, false]);
      expect([i, verifySshsig({ bytes: altered, signature, namespace: "holdpoint-plan" }).ok]).toEqual([
        i,
        false,
      ]);
    }
    // Some flips make another well-formed statement (a digit for a digit): those the digest and signature catch.
    expect(read).toBeLessThan(BYTES.length / 2);
  });

  test("every truncation is refused", () => {
    for (let i = 0; i < BYTES.length; i++) expect([i, refused(BYTES.subarray(0, i))]).toEqual([i, true]);
  });

  function refused(bytes: Uint8Array): boolean {
    try {
      parsePlanStatement(bytes);
      return false;
    } catch (e) {
      if (e instanceof HoldpointError && e.code === "ERR_PLAN_ALTERED") return true;
      throw e;
    }
  }
});
