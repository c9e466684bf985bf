/**
 * What lies where others can write, or answers from another process: packs of snapshots with their digest made anew, the
 * marker's tables in a target, the replies of an SSH agent. `FUZZ_RUNS` sets the runs of each.
 */
import { createHash } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import fc from "../support/fast-check.js";
import { wireString, wireUint32 } from "../../src/approval/ssh-wire.js";
import { digestOf } from "../../src/base/digest.js";
import { HoldpointError } from "../../src/base/errors.js";
import { agentSign, askAgent } from "../../src/machine/ssh-agent.js";
import { fileFrom, packFile } from "../../src/storage/chunks.js";
import type { Target } from "../../src/target/target.js";
import { testKey } from "../support/approvals.js";
import { altered, HOSTILE_WORDS } from "../support/mutate.js";
import { openTarget } from "../support/sqlite.js";

const runs = (byDefault: number): number => Number(process.env["FUZZ_RUNS"] ?? byDefault);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What was read, or the code of our own refusal; anything else that is thrown fails the test. */
async function outcome<T>(read: () => Promise<T> | T): Promise<T | string> {
  try {
    return await read();
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL") return e.code;
    throw e;
  }
}

describe("a pack whose closing digest was made anew", () => {
  const CHUNK = 512;
  let content: Buffer;
  let good: Buffer;
  let runsOf: ReturnType<typeof packFile>["runs"];
  beforeAll(() => {
    content = Buffer.concat(
      Array.from({ length: 150 }, (_, i) => Buffer.alloc(CHUNK, i % 40 === 0 ? "page" : `${i} of many`)),
    );
    writeFileSync(join(folder, "file"), content);
    runsOf = packFile(join(folder, "file"), join(folder, "pack"), CHUNK, []).runs;
    good = readFileSync(join(folder, "pack")).subarray(0, -32);
  });
  const read = (bytes: Uint8Array): Promise<string> => {
    const path = join(folder, "altered");
    writeFileSync(path, Buffer.concat([bytes, createHash("sha256").update(bytes).digest()]));
    return outcome(() => {
      const found = Buffer.concat([...fileFrom([path], runsOf)]);
      return found.equals(content) ? "as it was" : "other bytes";
    });
  };

  test("is refused, or gives bytes that are then held against the digest of the file", async () => {
    expect(await read(good)).toBe("as it was");
    await fc.assert(
      fc.asyncProperty(altered([good]), async (bytes) => {
        expect(["as it was", "other bytes", "ERR_SNAPSHOT_UNVERIFIED"]).toContain(await read(bytes));
      }),
      { numRuns: runs(2_000) },
    );
  });

  test.each([
    ["chunks of no bytes", 0, 19],
    ["chunks of four gigabytes", 0xffff_ffff, 19],
    ["a block of four gigabytes", 0xffff_ffff, 23],
    ["a block that is stored in four gigabytes", 0xffff_ffff, 28],
    ["four thousand million chunks", 0xffff_ffff, -1],
  ])("with %s is refused, and no memory is taken for it", async (_, word, at) => {
    const bytes = Buffer.from(good);
    const list =
      16 * (bytes.length > 0 ? runsOf.reduce((most, [, first, n]) => Math.max(most, first + n), 0) : 0);
    bytes.writeUInt32BE(word, at === -1 ? bytes.length - list - 4 : at);
    const before = process.memoryUsage().rss;
    expect(await read(bytes)).toBe("ERR_SNAPSHOT_UNVERIFIED");
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
  });
});

describe("the marker's tables", () => {
  const DIGEST = digestOf(Buffer.from("a bundle"));
  let good: string;
  beforeAll(async () => {
    good = join(folder, "pinned.db");
    new Database(good).exec("CREATE TABLE item (id INTEGER PRIMARY KEY)").close();
    const target = await openTarget(good, folder);
    await target.pin({
      format: "holdpoint-marker/1",
      identity: `sqlite:${"0".repeat(32)}`,
      name: "shop",
      environment: "production",
      place: { path: good },
      bundle: DIGEST,
      ledger: "lg_00000000",
      ledgerSequence: 3,
      ledgerHead: DIGEST,
      pinnedAt: "2026-11-22T12:00:00Z",
      pinnedBy: "dana",
    });
    await target.close();
    const db = new Database(good);
    db.exec(`INSERT INTO holdpoint_spent VALUES ('${DIGEST}', 'pl_a', 'rn_a', '["n1"]', '2026-11-22T12:00:00Z', 'lg_00000000', 'purge', 'dana', 3, NULL);
      INSERT INTO holdpoint_ledgers VALUES ('lg_other000', 3, '${DIGEST}');
      INSERT INTO holdpoint_batches VALUES ('rn_a', 1, 1, 3, '2026-11-22T12:00:00Z');
      INSERT INTO holdpoint_notes VALUES (1, 'held', 'shop', '2026-11-22T12:00:00Z', 'dana', 'because')`);
    db.close();
  });

  /** Everything that is read of the marker, each by itself: what one refuses must not hide what another one takes. */
  const asked: readonly ((target: Target) => Promise<unknown>)[] = [
    (t) => t.identify(),
    (t) => t.spentFor(DIGEST),
    (t) => t.notes(),
    (t) => t.batches("rn_a"),
    (t) => t.anchoredHead("lg_other000"),
    (t) => t.history({ job: "purge", since: "2026-11-21T12:00:00Z" }),
  ];
  const everything = async (path: string): Promise<readonly unknown[]> => {
    const target = await openTarget(path, folder);
    try {
      return await Promise.all(asked.map((ask) => outcome(() => ask(target))));
    } finally {
      await target.close();
    }
  };

  const CELLS: readonly (readonly [table: string, column: string])[] = [
    ...["format", "identity", "name", "environment", "place", "bundle", "ledger"].map(
      (c) => ["holdpoint_marker", c] as const,
    ),
    ...["ledger_sequence", "ledger_head", "pinned_at", "pinned_by"].map(
      (c) => ["holdpoint_marker", c] as const,
    ),
    ...["plan", "run", "nonces", "at", "ledger", "job", "by", "rows", '"commit"'].map(
      (c) => ["holdpoint_spent", c] as const,
    ),
    ...["sequence", "head"].map((c) => ["holdpoint_ledgers", c] as const),
    ...["wave", "batch", "rows", "at"].map((c) => ["holdpoint_batches", c] as const),
    ...["kind", "subject", "at", "by", "reason"].map((c) => ["holdpoint_notes", c] as const),
  ];
  const value = fc.oneof(
    fc.constantFrom<unknown>(
      ...HOSTILE_WORDS,
      0,
      -1,
      0.5,
      2 ** 53,
      9_223_372_036_854_775_807n,
      Buffer.of(0xff, 0),
    ),
    fc.constantFrom<unknown>(
      "[]",
      "{}",
      '{"a":1}',
      "[1]",
      "[[]]",
      '{"__proto__":"x"}',
      "null",
      "development",
    ),
    fc.string(),
    fc.uint8Array({ maxLength: 40 }).map((b) => Buffer.from(b)),
  );

  test("altered in one cell: refused as a marker that cannot be read, or read as what stands there", async () => {
    const path = join(folder, "cell.db");
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...CELLS), value, async ([table, column], cell) => {
        copyFileSync(good, path);
        const db = new Database(path);
        try {
          db.prepare(`UPDATE ${table} SET ${column} = ?`).run(cell);
        } catch {
          return; // The table itself does not take it.
        } finally {
          db.close();
        }
        for (const found of await everything(path))
          if (typeof found === "string") expect(found).toBe("ERR_ENV_CONTRADICTED");
        expect(Object.keys(Object.prototype)).toEqual([]);
      }),
      { numRuns: runs(600) },
    );
  });

  test.each([
    ["a table is gone", (t: string) => `DROP TABLE ${t}`],
    ["its rows are gone", (t: string) => `DELETE FROM ${t}`],
    [
      "a view without an end stands in its place",
      (t: string) =>
        `ALTER TABLE ${t} RENAME TO kept; CREATE VIEW ${t} AS WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n) SELECT kept.* FROM kept, n`,
    ],
    ["it has other columns", (t: string) => `DROP TABLE ${t}; CREATE TABLE ${t} (a)`],
  ])(
    "%s: refused by name, or read as empty; never by an error of the engine's own, never for ever",
    async (_, sql) => {
      const path = join(folder, "table.db");
      for (const table of new Set(CELLS.map(([t]) => t))) {
        copyFileSync(good, path);
        const db = new Database(path);
        db.exec(sql(table));
        db.close();
        for (const found of await everything(path)) {
          if (typeof found === "string")
            expect(found).toMatch(/^ERR_(ENV_CONTRADICTED|TARGET_UNREACHABLE|TARGET_UNSUPPORTED)$/);
        }
      }
    },
  );
});

describe("an SSH agent", () => {
  const key = testKey();
  const LIST = Buffer.concat([
    Buffer.of(12),
    wireUint32(2),
    wireString(key.blob),
    wireString(Buffer.from("dana@shop")),
    wireString(key.blob),
    wireString(Buffer.from("\u001b[2Jagain")),
  ]);
  const SIGNED = Buffer.concat([Buffer.of(14), wireString(Buffer.from("a signature"))]);
  let server: Server;
  let socket: string;
  let reply: Uint8Array = LIST;
  beforeAll(async () => {
    socket = join(folder, "agent");
    server = createServer((peer) => {
      peer.on("error", () => undefined);
      peer.once("data", () => peer.end(reply));
    });
    await new Promise<void>((done) => server.listen(socket, done));
  });
  afterAll(() => new Promise((done) => server.close(done)));
  const framed = (body: Uint8Array): Buffer => Buffer.concat([wireUint32(body.length), body]);

  test("whose list of keys is anything else has no keys, or those that its bytes spell", async () => {
    reply = framed(LIST);
    expect((await askAgent(socket)).keys.map((k) => k.fingerprint)).toEqual([
      key.fingerprint,
      key.fingerprint,
    ]);
    const bodies = altered([LIST]);
    await fc.assert(
      fc.asyncProperty(fc.oneof(bodies.map(framed), altered([framed(LIST)])), async (bytes) => {
        reply = bytes;
        const { keys } = await askAgent(socket);
        for (const found of keys) expect(found.fingerprint).toMatch(/^SHA256:[\w+/]{43}$/);
      }),
      { numRuns: runs(1_500) },
    );
  });

  test("whose answer to a signature is anything else is refused, or gives bytes that are then verified", async () => {
    reply = framed(LIST);
    const [first] = (await askAgent(socket)).keys;
    if (first === undefined) throw new Error("no key");
    await fc.assert(
      fc.asyncProperty(fc.oneof(altered([SIGNED]).map(framed), altered([framed(SIGNED)])), async (bytes) => {
        reply = bytes;
        const found = await outcome(() => agentSign(first, Buffer.from("data")));
        if (typeof found === "string") expect(found).toBe("ERR_KEY_REFUSED");
      }),
      { numRuns: runs(1_500) },
    );
  });
});
