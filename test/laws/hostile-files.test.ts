/**
 * Files that somebody made or altered: plan files with a digest made anew, declared sizes, bombs; working ChangeSets, ledgers
 * and snapshots as SQLite and bytes. Refused by one of our errors, soon, or exactly what they were. `FUZZ_RUNS` sets the runs.
 */
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import fc from "../support/fast-check.js";
import { HoldpointError } from "../../src/base/errors.js";
import type { Change, ChangeSink, TableShape } from "../../src/changeset/change.js";
import { digestOfSource } from "../../src/changeset/encode.js";
import { changeSet, sourceOf } from "../../src/changeset/source.js";
import { runBounded } from "../../src/machine/child.js";
import { createChanges, openChanges } from "../../src/storage/changes.js";
import { openLedger } from "../../src/storage/ledger.js";
import { readPlanFile, writePlanFile } from "../../src/storage/plan-file.js";
import { altered } from "../support/mutate.js";
import { born, gone, ordersSet, paid } from "../support/tables.js";

const runs = (byDefault: number): number => Number(process.env["FUZZ_RUNS"] ?? byDefault);
const cs = ordersSet(paid(1), gone(2), born(3));
const DIGEST = digestOfSource(sourceOf(cs)).digest;
/** What was read last. */
const [tables, changes]: [TableShape[], Change[]] = [[], []];
const collecting: ChangeSink = { table: (t) => void tables.push(t), add: (c) => void changes.push(c) };
const passing = { runBounded, removeOnClose: false };

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What a reader gave, or the code of its refusal; anything else it throws fails the test. */
async function outcome<T>(read: () => Promise<T> | T): Promise<T | { readonly refused: string }> {
  try {
    return await read();
  } catch (e) {
    if (e instanceof HoldpointError && e.code !== "ERR_INTERNAL") return { refused: e.code };
    throw e;
  }
}

/** One byte altered, and every length as it was: most of these fall into the statement. */
function oneByteOf(bytes: Buffer): fc.Arbitrary<Buffer> {
  return fc
    .tuple(fc.integer({ min: 0, max: bytes.length - 1 }), fc.integer({ min: 1, max: 255 }))
    .map(([at, flip]) => {
      const copy = Buffer.from(bytes);
      copy[at] = (copy[at] ?? 0) ^ flip;
      return copy;
    });
}

describe("a plan's file whose closing digest was made anew", () => {
  const resealed = (content: Uint8Array): Buffer =>
    Buffer.concat([content, createHash("sha256").update(content).digest()]);
  const read = async (bytes: Uint8Array): Promise<unknown> => {
    const path = join(folder, "p.hpplan");
    writeFileSync(path, bytes);
    return outcome(async () => {
      const file = await readPlanFile(path, { followLinks: true });
      tables.length = 0;
      changes.length = 0;
      return (await file.loadInto(collecting)).digest;
    });
  };
  let content: Buffer;
  beforeAll(async () => {
    const path = join(folder, "good.hpplan");
    // Large enough that some of the alterations meet nothing but it.
    const statement = Buffer.from(`{"a":"${"1".repeat(600)}"}`);
    await writePlanFile(path, { statement, signature: null, source: sourceOf(cs) });
    content = readFileSync(path).subarray(0, -32);
  });

  test("is refused, or its rows are those of the digest that is then held against the signed one", async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(fc.oneof(altered([content]), oneByteOf(content)), async (bytes) => {
        const found = await read(resealed(bytes));
        if (typeof found !== "string") return;
        accepted += 1;
        expect(digestOfSource(sourceOf(changeSet(tables, changes))).digest).toBe(found);
      }),
      { numRuns: runs(1_500) },
    );
    // Statement and signature are sections that only their own digests cover.
    expect(accepted).toBeGreaterThan(0);
  });

  test.each<readonly [string, (good: Buffer) => Buffer]>([
    [
      "a statement of four gigabytes that is not there",
      (good) => {
        const bytes = Buffer.from(good);
        bytes.writeUInt32BE(0xffff_ffff, "holdpoint-plan/1\n".length);
        return bytes;
      },
    ],
    [
      "a block that says it is larger than a block",
      (good) => {
        const bytes = Buffer.from(good);
        const at = bytes.indexOf("holdpoint-blocks/1") + "holdpoint-blocks/1".length;
        bytes.writeUInt32BE(0x7fff_ffff, at + 1);
        return bytes;
      },
    ],
    [
      "64 MiB of zeros in a block that says 256 KiB",
      (good) => {
        const at = good.indexOf("holdpoint-blocks/1") + "holdpoint-blocks/1".length;
        const bomb = brotliCompressSync(Buffer.alloc(64 * 1024 * 1024));
        const header = Buffer.alloc(9);
        header[0] = 1;
        header.writeUInt32BE(256 * 1024, 1);
        header.writeUInt32BE(bomb.length, 5);
        const digest = createHash("sha256").update(header).update(bomb).digest();
        return Buffer.concat([good.subarray(0, at), header, digest, bomb]);
      },
    ],
    ["nothing after its first line", (good) => good.subarray(0, 17)],
    [
      "a hundred thousand empty pieces",
      (good) => Buffer.concat([good.subarray(0, 60), Buffer.alloc(400_000)]),
    ],
  ])("%s", async (_, made) => {
    const before = process.memoryUsage().rss;
    expect(await read(resealed(made(content)))).toEqual({ refused: "ERR_PLAN_ALTERED" });
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
  });
});

/** What somebody with an SQLite shell would do to a table, in place of it or around it. */
const ATTACKS: readonly (readonly [string, (table: string) => string])[] = [
  [
    "a view without an end in its place",
    (table) =>
      `ALTER TABLE ${table} RENAME TO kept; CREATE VIEW ${table} AS WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n) SELECT kept.* FROM kept, n`,
  ],
  [
    "a view that is sorted without an end in its place",
    (table) =>
      `ALTER TABLE ${table} RENAME TO kept; CREATE VIEW ${table} AS WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n) SELECT v AS sequence, v AS key, kept.* FROM n, kept`,
  ],
  [
    "a view of the same rows in its place",
    (table) => `ALTER TABLE ${table} RENAME TO kept; CREATE VIEW ${table} AS SELECT * FROM kept`,
  ],
  ["another column", (table) => `ALTER TABLE ${table} ADD COLUMN "\u001b[2J" TEXT`],
  ["no such table", (table) => `DROP TABLE ${table}`],
];

describe("a working ChangeSet", () => {
  let good: string;
  beforeAll(async () => {
    good = join(folder, "work.db");
    const writer = await createChanges(good, passing);
    for (const shape of cs.tables) writer.table(shape);
    for (const change of cs.changes) writer.add(change);
    writer.finish().close();
  });
  const read = async (path: string): Promise<unknown> =>
    outcome(async () => {
      const file = await openChanges(path, passing);
      try {
        return digestOfSource(file).digest;
      } finally {
        file.close();
      }
    });

  test.each(ATTACKS)("with %s is refused, or is what it was", async (_, attack) => {
    const path = join(folder, "attacked.db");
    copyFileSync(good, path);
    const db = new Database(path);
    db.exec(attack("orders"));
    db.close();
    const found = await read(path);
    if (found !== DIGEST) expect(found).toEqual({ refused: "ERR_CHANGESET_ALTERED" });
  });

  test("with facts that no change has is refused", async () => {
    const path = join(folder, "facts.db");
    copyFileSync(good, path);
    const db = new Database(path);
    db.exec("UPDATE orders SET count = 2");
    db.close();
    expect(await read(path)).toEqual({ refused: "ERR_CHANGESET_ALTERED" });
  });

  test("with any bytes altered is refused, or other rows under another digest", async () => {
    const path = join(folder, "fuzzed.db");
    await fc.assert(
      fc.asyncProperty(altered([readFileSync(good)]), async (bytes) => {
        writeFileSync(path, bytes);
        await read(path);
      }),
      { numRuns: runs(300) },
    );
  });
});

describe("a ledger", () => {
  let good: string;
  const at = new Date("2026-11-24T14:38:44Z");
  const deps = {
    clock: { now: () => at },
    random: (size: number) => Uint8Array.from({ length: size }, (_, i) => i),
  };
  beforeAll(async () => {
    good = join(folder, "ledger");
    mkdirSync(good);
    const ledger = await openLedger(good, deps);
    ledger.create();
    for (let i = 0; i < 5; i++) ledger.append({ kind: "planned", target: "elb-prod", facts: { rows: i } });
    ledger.close();
  });
  /** Whether it verifies, or how it was refused. */
  const read = async (): Promise<unknown> =>
    outcome(async () => {
      const ledger = await openLedger(join(folder, "attacked"), deps);
      try {
        const verified = ledger.verify([]);
        return verified.ok ? { entries: verified.entries } : { refused: "ERR_LEDGER_BROKEN" };
      } finally {
        ledger.close();
      }
    });
  const attacked = (work: (path: string) => void): void => {
    rmSync(join(folder, "attacked"), { recursive: true, force: true });
    mkdirSync(join(folder, "attacked"));
    for (const name of ["ledger.db", "ledger.head"])
      copyFileSync(join(good, name), join(folder, "attacked", name));
    work(join(folder, "attacked", "ledger.db"));
  };

  test.each(ATTACKS)("with %s is refused, or verifies as it was", async (_, attack) => {
    attacked((path) => {
      const db = new Database(path);
      db.exec(`DROP TRIGGER entry_no_delete; DROP TRIGGER entry_no_update; ${attack("entry")}`);
      db.close();
    });
    const found = await read();
    if (JSON.stringify(found) !== '{"entries":6}')
      expect(found).toEqual({ refused: expect.stringMatching(/^ERR_LEDGER_(BROKEN|MISSING)$/) });
  });

  test("with any bytes altered is refused, or verifies with every entry", async () => {
    const bytes = readFileSync(join(good, "ledger.db"));
    await fc.assert(
      fc.asyncProperty(altered([bytes]), async (other) => {
        attacked((path) => writeFileSync(path, other));
        const found = await read();
        if (JSON.stringify(found) === '{"entries":6}') return;
        expect(found).toEqual({ refused: expect.stringMatching(/^ERR_/) });
      }),
      { numRuns: runs(300) },
    );
  });
});
