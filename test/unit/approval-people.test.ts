import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parseAllowedSigners } from "../../src/approval/allowed-signers.js";
import {
  bundleBytes,
  bundleDigest,
  diffBundles,
  makeBundle,
  parseBundle,
  peopleOfBundle,
  type TrustBundle,
} from "../../src/approval/bundle.js";
import { ownerOfKey, people, personOfKey } from "../../src/approval/people.js";
import type { Person } from "../../src/approval/requirement.js";
import { digestOf } from "../../src/base/digest.js";
import { HoldpointError } from "../../src/base/errors.js";
import { NOW, testKey } from "../support/approvals.js";
import { keygenVerifies, makeFolder, removeFolder } from "../support/ssh.js";
import { armor } from "../../src/approval/sshsig.js";

const RAVI = testKey();
const RAVI_2 = testKey();
const MONA = testKey();
const NAMESPACES = 'namespaces="holdpoint-approval,holdpoint-plan"';
const FILE = "people/allowed_signers";

/** The `why` of the refusal, after checking code and place. */
function refusalOf(text: string, line = 1): string {
  try {
    parseAllowedSigners(text, FILE);
  } catch (e) {
    if (!(e instanceof HoldpointError)) throw e;
    expect(e.code).toBe("ERR_PEOPLE_INVALID");
    expect(e.message).toContain(`${FILE}:${line} `);
    return e.why ?? "";
  }
  return "accepted";
}

describe("allowed signers", () => {
  test("people with their keys, options and lines", () => {
    const text = [
      "# the shop",
      "",
      `ravi@shop.example ${NAMESPACES} ${RAVI.line} ravi's laptop`,
      `  mona@shop.example\tvalid-after="20260101Z",valid-before="20270101123000Z",${NAMESPACES}  ${MONA.line}`,
      `ravi@shop.example cert-authority,namespaces="git,holdpoint-approval" ${RAVI_2.line}`,
    ].join("\n");
    const { people: found, file } = parseAllowedSigners(text, FILE);
    expect(file).toBe(FILE);
    expect(found.map((p) => [p.name, p.keys.map((k) => k.line)])).toEqual([
      ["ravi@shop.example", [3, 5]],
      ["mona@shop.example", [4]],
    ]);
    expect(found[0]?.keys[0]).toEqual({
      type: "ssh-ed25519",
      blob: Buffer.from(RAVI.blob),
      fingerprint: RAVI.fingerprint,
      namespaces: ["holdpoint-approval", "holdpoint-plan"],
      validAfter: null,
      validBefore: null,
      certAuthority: false,
      line: 3,
    });
    expect(found[0]?.keys[1]).toMatchObject({
      certAuthority: true,
      namespaces: ["git", "holdpoint-approval"],
    });
    expect(found[1]?.keys[0]).toMatchObject({
      validAfter: "2026-01-01T00:00:00Z",
      validBefore: "2027-01-01T12:30:00Z",
    });
  });

  test.each([
    ["a pattern with *", `*@shop.example ${NAMESPACES} ${RAVI.line}`, /is a pattern/],
    ["a pattern with ?", `rav? ${NAMESPACES} ${RAVI.line}`, /is a pattern/],
    ["a negation", `!ravi ${NAMESPACES} ${RAVI.line}`, /is a pattern/],
    ["several principals", `ravi,mona ${NAMESPACES} ${RAVI.line}`, /several people/],
    ["a quoted principal", `"ravi" ${NAMESPACES} ${RAVI.line}`, /not a name/],
    ["a principal that is an option of a command", `-n ${NAMESPACES} ${RAVI.line}`, /not a name/],
    ["no namespaces", `ravi ${RAVI.line}`, /namespaces= is missing/],
    ["no namespaces beside another option", `ravi cert-authority ${RAVI.line}`, /namespaces= is missing/],
    ["namespaces without a value", `ravi namespaces ${RAVI.line}`, /needs a value/],
    ["an empty namespace", `ravi namespaces="" ${RAVI.line}`, /not a namespace/],
    ["a pattern of namespaces", `ravi namespaces="holdpoint-*" ${RAVI.line}`, /not a namespace/],
    ["a negated namespace", `ravi namespaces="holdpoint-plan,!git" ${RAVI.line}`, /not a namespace/],
    ["a namespace misspelt", `ravi namespaces="holdpoint-approvals" ${RAVI.line}`, /unknown namespace/],
    ["a namespace twice", `ravi namespaces="git,git" ${RAVI.line}`, /stands twice/],
    ["an unknown option", `ravi ${NAMESPACES},no-touch-required ${RAVI.line}`, /unknown option/],
    ["an option in capitals", `ravi NAMESPACES="git" ${RAVI.line}`, /not an option/],
    ["an option twice", `ravi ${NAMESPACES},${NAMESPACES} ${RAVI.line}`, /stands twice/],
    ["a value for cert-authority", `ravi cert-authority="yes",${NAMESPACES} ${RAVI.line}`, /takes no value/],
    ["an unquoted value", `ravi namespaces=git ${RAVI.line}`, /not an option/],
    ["a quote left open", `ravi namespaces="git ${RAVI.line}`, /not an option/],
    ["an escaped quote", `ravi namespaces="g\\"it" ${RAVI.line}`, /not an option/],
    ["a comma too many", `ravi ${NAMESPACES}, ${RAVI.line}`, /not an option/],
    ["a time without Z", `ravi valid-after="20260101",${NAMESPACES} ${RAVI.line}`, /has no Z/],
    [
      "a day that does not exist",
      `ravi valid-before="20260230Z",${NAMESPACES} ${RAVI.line}`,
      /does not exist/,
    ],
    [
      "an hour that does not exist",
      `ravi valid-before="202602012500Z",${NAMESPACES} ${RAVI.line}`,
      /does not exist/,
    ],
    ["a time in words", `ravi valid-before="soon",${NAMESPACES} ${RAVI.line}`, /not a time/],
    [
      "a validity that is empty",
      `ravi valid-after="20270101Z",valid-before="20260101Z",${NAMESPACES} ${RAVI.line}`,
      /never valid/,
    ],
    ["no key", `ravi ${NAMESPACES}`, /not an option/],
    ["a name alone", "ravi", /not an option/],
    ["no base64", `ravi ${NAMESPACES} ssh-ed25519`, /no key where one is expected/],
    ["base64 with spare bits", `ravi ${NAMESPACES} ${RAVI.line.slice(0, -1)}/=`, /no key where one/],
    [
      "another type than the key's",
      `ravi ${NAMESPACES} ${RAVI.line.replace("ssh-ed25519", "ssh-rsa")}`,
      /the key is ssh-ed25519/,
    ],
    ["a carriage return", `ravi ${NAMESPACES} ${RAVI.line}\r`, /carriage return/],
    ["a control character", `ravi ${NAMESPACES} ${RAVI.line} \u001b[1m`, /control characters/],
    ["an authorized_keys line", RAVI.line, /not an option|no key/],
  ])("%s is an error with file and line", (_, text, why) => {
    expect(refusalOf(text)).toMatch(why);
  });

  test("a key under two people, and a line twice, are errors on the second line", () => {
    const first = `ravi ${NAMESPACES} ${RAVI.line}\n`;
    expect(refusalOf(`${first}mona ${NAMESPACES} ${RAVI.line}\n`, 2)).toMatch(
      /stands under ravi already, on line 1/,
    );
    expect(refusalOf(`${first}# twice\n${first}`, 3)).toMatch(/ravi has this key already/);
    expect(refusalOf(`${first}ravi cert-authority,${NAMESPACES} ${RAVI.line}\n`, 2)).toMatch(
      /has this key already/,
    );
    expect(refusalOf(`${first}mona cert-authority,${NAMESPACES} ${RAVI.line}\n`, 2)).toMatch(
      /a key has one owner/,
    );
  });

  test("an authority may vouch for several people, one line each", () => {
    const line = (name: string): string => `${name} cert-authority,${NAMESPACES} ${RAVI.line}\n`;
    expect(parseAllowedSigners(line("ravi") + line("mona"), FILE).people.map((p) => p.name)).toEqual([
      "ravi",
      "mona",
    ]);
  });

  describe("means the same to ssh-keygen", () => {
    let folder: string;
    beforeAll(() => {
      folder = makeFolder();
    });
    afterAll(() => removeFolder(folder));

    test.each([
      ["a plain line", `ravi ${NAMESPACES} ${RAVI.line}`, true],
      ["a line whose time has not come", `ravi valid-after="29990101Z",${NAMESPACES} ${RAVI.line}`, false],
      ["a line whose time is over", `ravi valid-before="20200101000000Z",${NAMESPACES} ${RAVI.line}`, false],
      ["a line for another purpose", `ravi namespaces="git" ${RAVI.line}`, false],
      ["a line for another person", `mona ${NAMESPACES} ${RAVI.line}`, false],
    ])("%s", (_, line, good) => {
      const bytes = Buffer.from("x");
      const armored = armor(RAVI.sign("holdpoint-approval", bytes));
      const check = {
        folder,
        signers: `${line}\n`,
        person: "ravi",
        namespace: "holdpoint-approval",
        bytes,
        armored,
      };
      expect(keygenVerifies(check)).toBe(good);
      const list = people(parseAllowedSigners(line, FILE), {});
      const owner = personOfKey(list, RAVI.fingerprint, "holdpoint-approval", new Date());
      expect(owner?.name === "ravi").toBe(good);
    });
  });
});

describe("people", () => {
  const signers = parseAllowedSigners(
    `ravi ${NAMESPACES} ${RAVI.line}\nravi valid-before="20270101Z",${NAMESPACES} ${RAVI_2.line}\nmona namespaces="holdpoint-plan" ${MONA.line}\n`,
    FILE,
  );
  const list = people(signers, { dba: ["ravi"], leads: ["mona", "ravi"] });

  test("stand in order, with their groups", () => {
    expect(list.map((p) => [p.name, p.groups])).toEqual([
      ["mona", ["leads"]],
      ["ravi", ["dba", "leads"]],
    ]);
  });

  test.each([
    ["an unknown member", { dba: ["zoe"] }, /"zoe" has no key/],
    ["an empty group", { dba: [] }, /no members/],
    ["a member twice", { dba: ["ravi", "ravi"] }, /twice/],
    ["a name that is a pattern", { "*": ["ravi"] }, /group's name/],
  ])("groups with %s are an error", (_, groups, why) => {
    const wanted = expect.objectContaining({ code: "ERR_PEOPLE_INVALID", why: expect.stringMatching(why) });
    expect(() => people(signers, groups)).toThrow(wanted);
  });

  test("a key is its owner's, for its purpose, in its time", () => {
    const at = (time: string): string =>
      ownerOfKey(list, RAVI_2.fingerprint, "holdpoint-approval", new Date(time)).kind;
    expect(personOfKey(list, RAVI.fingerprint, "holdpoint-approval", NOW)?.name).toBe("ravi");
    expect(at("2026-12-31T23:59:59Z")).toBe("person");
    expect(at("2027-01-01T00:00:00Z")).toBe("key-expired");
    expect(ownerOfKey(list, MONA.fingerprint, "holdpoint-approval", NOW).kind).toBe("namespace");
    expect(ownerOfKey(list, testKey().fingerprint, "holdpoint-approval", NOW).kind).toBe("unknown-key");
    expect(personOfKey(list, MONA.fingerprint, "holdpoint-approval", NOW)).toBeNull();
  });
});

describe("the trust bundle", () => {
  const text = `ravi ${NAMESPACES} ${RAVI.line} laptop\nmona valid-before="20270101Z",${NAMESPACES} ${MONA.line}\n`;
  const groups = { dba: ["ravi", "mona"] };
  const policies = [{ path: "policies/production.yaml", digest: digestOf("rules") }];
  const guarding = { environment: "production", append_only: ["audit_log"] };
  const bundle = bundleOf(people(parseAllowedSigners(text, FILE), groups));

  function bundleOf(
    list: readonly Person[],
    change: Partial<Parameters<typeof makeBundle>[0]> = {},
  ): TrustBundle {
    return makeBundle({ people: list, policies, guarding, ...change });
  }

  test("is the same for another order of lines, comments and groups", () => {
    const other = `# moved\nmona valid-before="20270101000000Z",namespaces="holdpoint-plan,holdpoint-approval" ${MONA.line} x\n\nravi ${NAMESPACES} ${RAVI.line}\n`;
    const again = bundleOf(people(parseAllowedSigners(other, FILE), { dba: ["mona", "ravi"] }));
    expect(bundleDigest(again)).toBe(bundleDigest(bundle));
    expect(diffBundles(bundle, again)).toEqual([]);
  });

  test("comes back from its bytes, with people who own their keys", () => {
    expect(parseBundle(bundleBytes(bundle))).toEqual(bundle);
    expect(bundleDigest(parseBundle(bundleBytes(bundle)))).toBe(digestOf(bundleBytes(bundle)));
    const back = peopleOfBundle(bundle);
    expect(back.map((p) => [p.name, p.groups])).toEqual([
      ["mona", ["dba"]],
      ["ravi", ["dba"]],
    ]);
    expect(personOfKey(back, RAVI.fingerprint, "holdpoint-approval", NOW)?.name).toBe("ravi");
  });

  test.each([
    ["a space", (s: string) => s.replace(":", ": ")],
    ["a field too many", (s: string) => s.replace('{"format"', '{"extra":1,"format"')],
    ["another version", (s: string) => s.replace("bundle/1", "bundle/2")],
    ["nothing", () => ""],
  ])("with %s is refused", (_, alter) => {
    const altered = Buffer.from(alter(Buffer.from(bundleBytes(bundle)).toString("utf8")));
    expect(() => parseBundle(altered)).toThrow(expect.objectContaining({ code: "ERR_TRUST_BUNDLE" }));
  });

  test("says in words what changes", () => {
    const zoe = testKey();
    const changed = bundleOf(
      people(
        parseAllowedSigners(
          `ravi ${NAMESPACES} ${RAVI.line}\nravi ${NAMESPACES} ${RAVI_2.line}\nzoe ${NAMESPACES} ${zoe.line}\n`,
          FILE,
        ),
        { dba: ["ravi", "zoe"], leads: ["ravi"] },
      ),
      {
        policies: [{ path: "policies/production.yaml", digest: digestOf("weaker rules") }],
        guarding: { environment: "staging", append_only: ["audit_log"], mask: [] },
      },
    );
    expect(diffBundles(bundle, changed)).toEqual([
      "- person mona may sign no more",
      `+ ravi: key ${RAVI_2.fingerprint} (ssh-ed25519) for holdpoint-approval, holdpoint-plan`,
      "+ person zoe may sign",
      `+ zoe: key ${zoe.fingerprint} (ssh-ed25519) for holdpoint-approval, holdpoint-plan`,
      "- group dba: mona",
      "+ group dba: zoe",
      "+ group leads: ravi",
      expect.stringMatching(/^~ policy file policies\/production.yaml: \w{4}….{4} → \w{4}….{4}$/),
      '~ guarding environment: "production" → "staging"',
      "+ guarding mask: []",
    ]);
  });

  test("every byte of an allowed-signers line flipped is refused, or is another bundle that shows its change", () => {
    const line = `ravi valid-after="20200101Z",valid-before="20300101Z",${NAMESPACES} ${RAVI.line}`;
    const pinned = makeBundle({ people: people(parseAllowedSigners(line, FILE), {}), policies, guarding });
    for (let i = 0; i < line.length; i++) {
      for (let bit = 1; bit < 256; bit *= 2) {
        const altered = Buffer.from(line, "latin1");
        altered[i] = (altered[i] ?? 0) ^ bit;
        const other = bundleOrCode(altered.toString("latin1"));
        if (typeof other === "string") {
          expect([i, bit, other]).toEqual([i, bit, "ERR_PEOPLE_INVALID"]);
        } else {
          expect([i, bit, bundleDigest(other) === bundleDigest(pinned)]).toEqual([i, bit, false]);
          expect([i, bit, diffBundles(pinned, other).length > 0]).toEqual([i, bit, true]);
        }
      }
    }
  });

  test("every truncation of an allowed-signers line is refused", () => {
    const line = `ravi ${NAMESPACES} ${RAVI.line}`;
    for (let i = 1; i < line.length; i++)
      expect([i, bundleOrCode(line.slice(0, i))]).toEqual([i, "ERR_PEOPLE_INVALID"]);
  });

  function bundleOrCode(line: string): TrustBundle | string {
    try {
      return makeBundle({ people: people(parseAllowedSigners(line, FILE), {}), policies, guarding });
    } catch (e) {
      if (e instanceof HoldpointError) return e.code;
      throw e;
    }
  }
});
