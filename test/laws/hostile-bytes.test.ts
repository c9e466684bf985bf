/**
 * What has exactly one spelling (statements, ledger entries, manifests, bundles, streams, certificates, signatures) and comes
 * from others: an altered document is refused, or is another document that is spelt so. `FUZZ_RUNS` sets the runs of each.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { bundleBytes, makeBundle, parseBundle } from "../../src/approval/bundle.js";
import { planStatementBytes, parsePlanStatement } from "../../src/approval/plan-statement-codec.js";
import { parsePublicKey } from "../../src/approval/public-key.js";
import { readCertificate } from "../../src/approval/ssh-certificate.js";
import { WireFailure } from "../../src/approval/ssh-wire.js";
import { armor, dearmor } from "../../src/approval/sshsig.js";
import { makeStatement, parseStatement, statementBytes } from "../../src/approval/statement.js";
import { approvalBytes, parseApproval } from "../../src/approval/token.js";
import { digestOf } from "../../src/base/digest.js";
import { packBlocks, unpackBlocks } from "../../src/changeset/blocks.js";
import { decodeChangeSet, encodeStream } from "../../src/changeset/encode.js";
import { sourceOf } from "../../src/changeset/source.js";
import { entryBytes, parseEntry } from "../../src/ledger/chain.js";
import { manifestBytes, parseManifest } from "../../src/snapshot/manifest.js";
import { person, statement, testKey, token } from "../support/approvals.js";
import { altered, readOrRefused, watched } from "../support/mutate.js";
import { planStatement } from "../support/plan-statement.js";
import { born, gone, ORDERS, ordersSet, paid } from "../support/tables.js";

/** A reader of one spelling: the documents that are altered, how they are read, and how what was read is spelt. */
interface Reader {
  readonly runs: number;
  readonly documents: readonly Uint8Array[];
  readonly respelt: (bytes: Uint8Array) => Uint8Array | "refused";
}

const runs = (byDefault: number): number => Number(process.env["FUZZ_RUNS"] ?? byDefault);

function reader<T>(
  byDefault: number,
  documents: readonly Uint8Array[],
  parse: (bytes: Uint8Array) => T,
  spell: (value: T) => Uint8Array,
): Reader {
  return {
    runs: runs(byDefault),
    documents,
    respelt: (bytes) => {
      const read = readOrRefused(() => ({ value: parse(bytes) }));
      return read === "refused" ? read : spell(read.value);
    },
  };
}

const RAVI = testKey();
const ravi = person("ravi", [RAVI], ["dba"]);
const made = (change: object): Uint8Array =>
  statementBytes(
    makeStatement({
      act: "change-trust",
      target: "elb-prod",
      identity: "sqlite:8f1c2b3a4d5e6f708192a3b4c5d6e7f8",
      now: new Date("2026-11-24T14:38:44Z"),
      ttlSeconds: 3600,
      nonce: Buffer.alloc(16, 7),
      from: digestOf("old"),
      to: digestOf("new"),
      changes: ["people: + lee", "policies/production.yaml changed"],
      ...change,
    }),
  );
const entry = (facts: Record<string, string | number>): Uint8Array =>
  entryBytes({
    format: "holdpoint-ledger/1",
    ledger: "lg_0123456789abcdef",
    sequence: 7,
    at: "2026-11-24T14:38:44Z",
    kind: "planned",
    target: "elb-prod \ufffd",
    plan: "pl_0123456789abcdef",
    run: null,
    facts,
    previous: digestOf("before"),
  });
const manifest = manifestBytes({
  format: "holdpoint-snapshot/1",
  id: "sn_0123456789abcdef",
  level: "database",
  target: "elb-prod",
  identity: "sqlite:8f1c",
  plan: null,
  run: null,
  takenAt: "2026-11-24T14:38:44Z",
  // A name that holds the character by which bytes that are no text are shown: they must not be taken for it.
  tables: [{ ...ORDERS, name: "orders \ufffd" }],
  rows: 12,
  content: digestOf("rows"),
  file: { bytes: 8192, chunkBytes: 4096, packs: ["sn_0123456789abcdef"], runs: [[0, 0, 2]] },
});
const bundle = bundleBytes(
  makeBundle({
    people: [ravi],
    policies: [{ path: "policies/\ufffd.yaml", digest: digestOf("p") }],
    guarding: { environment: "production", mask: ["customers.email"] },
  }),
);
const stream = Buffer.concat([...encodeStream(sourceOf(ordersSet(paid(1), gone(2), born(3))))]);
const streamOf = (value: ReturnType<typeof decodeChangeSet>): Uint8Array =>
  Buffer.concat([...encodeStream(sourceOf(value))]);
const packed = Buffer.concat([...packBlocks([stream, Buffer.alloc(300_000, 5)])]);
const signed = token(RAVI, statement("ravi"));

const READERS: Readonly<Record<string, Reader>> = {
  "plan statements": reader(
    20_000,
    [planStatementBytes(planStatement())],
    parsePlanStatement,
    planStatementBytes,
  ),
  approvals: reader(20_000, [signed.bytes, approvalBytes(statement("lee"))], parseApproval, approvalBytes),
  "statements of trust, pins, rejections, revocations, reviews": reader(
    20_000,
    [
      made({}),
      made({ act: "change-pin" }),
      made({ act: "reject", reason: "no" }),
      made({ act: "revoke" }),
      made({ act: "review" }),
      made({ act: "reveal", reason: "which address", changes: ["~ people.email is shown"] }),
    ],
    parseStatement,
    statementBytes,
  ),
  "ledger entries": reader(
    20_000,
    [entry({ rows: 5 }), entry({ reason: "€ \u0000", snapshot: "sn_1" })],
    (bytes) => {
      const parsed = parseEntry(bytes);
      return parsed.ok ? parsed.entry : null;
    },
    (value) => (value === null ? Buffer.from("") : entryBytes(value)),
  ),
  "snapshot manifests": reader(
    10_000,
    [manifest],
    (bytes) => {
      const parsed = parseManifest(bytes);
      return parsed.ok ? parsed.manifest : null;
    },
    (value) => (value === null ? Buffer.from("") : manifestBytes(value)),
  ),
  "trust bundles": reader(10_000, [bundle], parseBundle, bundleBytes),
  "streams of changes": reader(10_000, [stream], (bytes) => decodeChangeSet([bytes]), streamOf),
  blocks: reader(
    500,
    [packed],
    (bytes) => Buffer.concat([...unpackBlocks([bytes])]),
    (raw) => Buffer.concat([...packBlocks([raw])]),
  ),
};

test.each(Object.entries(READERS))("altered %s are refused, or come back byte for byte", (name, of) => {
  for (const document of of.documents) expect(of.respelt(document)).toEqual(Buffer.from(document));
  let accepted = 0;
  fc.assert(
    fc.property(
      altered(of.documents),
      watched((bytes) => {
        const respelt = of.respelt(bytes);
        if (respelt === "refused" || respelt.length === 0) return;
        accepted += 1;
        // Compressed blocks may be packed in more than one way; what they hold is under digests all the same.
        if (name !== "blocks") expect(Buffer.from(respelt).equals(bytes)).toBe(true);
      }),
    ),
    { numRuns: of.runs },
  );
  if (name === "blocks" || name.startsWith("streams")) return;
  // Were nothing accepted, the mutations would be too coarse to try anything.
  expect(accepted).toBeGreaterThan(0);
});

test.each(["ledger entries", "snapshot manifests", "trust bundles"])(
  "bytes that are no text are not taken for the character that stands for them: %s",
  (name) => {
    const [document] = READERS[name]?.documents ?? [];
    const bytes = Buffer.from(document ?? []);
    const at = bytes.indexOf("\ufffd");
    expect(at).toBeGreaterThan(0);
    const other = Buffer.concat([bytes.subarray(0, at), Buffer.of(0xff), bytes.subarray(at + 3)]);
    const respelt = READERS[name]?.respelt(other);
    expect(respelt === "refused" || respelt?.length === 0).toBe(true);
  },
);

describe("OpenSSH's own formats", () => {
  const folder = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
  const keygen = (...args: readonly string[]): void =>
    void execFileSync("ssh-keygen", ["-q", ...args], { cwd: folder, stdio: "ignore" });
  for (const name of ["authority", "ravi"]) keygen("-t", "ed25519", "-N", "", "-C", name, "-f", name);
  keygen("-s", "authority", "-I", "id", "-n", "ravi", "-V", "+1h", "ravi.pub");
  const certificate = parsePublicKey(readFileSync(join(folder, "ravi-cert.pub"), "utf8").trim());
  rmSync(folder, { recursive: true, force: true });

  test("a certificate with anything altered is not signed by its authority", () => {
    expect(readCertificate(certificate.blob).principal).toBe("ravi");
    fc.assert(
      fc.property(
        altered([certificate.blob]),
        watched((bytes) => {
          expect(() => readCertificate(bytes)).toThrow(WireFailure);
        }),
      ),
      { numRuns: runs(5_000) },
    );
  });

  test("an armoured signature gives the bytes that it spells, or nothing", () => {
    const text = Buffer.from(armor(signed.signature), "latin1");
    fc.assert(
      fc.property(
        altered([text]),
        watched((bytes) => {
          readOrRefused(() => dearmor(bytes.toString("latin1")));
        }),
      ),
      { numRuns: runs(5_000) },
    );
  });

  test("a public key that is read is the key that its line spells", () => {
    fc.assert(
      fc.property(
        altered([Buffer.from(`${RAVI.line} ravi`)]),
        watched((bytes) => {
          const key = readOrRefused(() => parsePublicKey(bytes.toString("latin1")));
          if (key === "refused") return;
          expect(bytes.toString("latin1")).toContain(Buffer.from(key.blob).toString("base64").slice(0, 40));
        }),
      ),
      { numRuns: runs(5_000) },
    );
  });
});
