import { spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "@jest/globals";
import { codeOf } from "../../src/base/errors.js";
import type { LedgerStore } from "../../src/ledger/entry.js";
import { openLedger } from "../../src/storage/ledger.js";
import { loadSqlite } from "../../src/storage/sqlite.js";
import { inFolder } from "../support/temporary.js";

const at = new Date("2026-11-24T14:38:44Z");
let seed = 0;
const deps = {
  clock: { now: () => at },
  random: (size: number) => Uint8Array.from({ length: size }, () => (seed = (seed * 73 + 41) % 256)),
};

/** Ledgers made once and copied: an append is flushed to disk several times, which two hundred tests would feel. */
const templates = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
afterAll(() => rmSync(templates, { recursive: true, force: true }));

/** A closed ledger of so many entries. */
async function makeLedger(folder: string, entries: number): Promise<void> {
  const template = join(templates, String(entries));
  if (!existsSync(template)) {
    mkdirSync(template);
    await fillLedger(template, entries);
  }
  for (const file of ["ledger.db", "ledger.head"]) copyFileSync(join(template, file), join(folder, file));
}

async function fillLedger(folder: string, entries: number): Promise<void> {
  const ledger = await openLedger(folder, deps);
  ledger.create();
  for (let i = 1; i < entries; i++) {
    const target = i % 2 === 0 ? "elb-prod" : "shop";
    ledger.append({
      kind: i % 10 === 0 ? "approved" : "planned",
      target,
      plan: `pl_${i % 7}`,
      facts: { rows: i },
    });
  }
  ledger.close();
}

async function withLedger<T>(folder: string, use: (ledger: LedgerStore) => T): Promise<T> {
  const ledger = await openLedger(folder, deps);
  try {
    return use(ledger);
  } finally {
    ledger.close();
  }
}

/** Somebody with write access to the file: no trigger stops them. */
async function tamper(folder: string, ...statements: readonly string[]): Promise<void> {
  const sqlite = await loadSqlite();
  const db = new sqlite(join(folder, "ledger.db"));
  const triggers = db.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").all() as {
    name: string;
    sql: string;
  }[];
  for (const { name } of triggers) db.exec(`DROP TRIGGER ${name}`);
  for (const sql of statements) db.exec(sql);
  for (const { sql } of triggers) db.exec(sql);
  db.close();
}

/** The code of a refusal at opening, appending or reading; "accepted" when there is none. */
async function appendCode(folder: string): Promise<string | undefined> {
  try {
    await withLedger(folder, (l) => l.append({ kind: "planned", facts: {} }));
    return "accepted";
  } catch (e) {
    return codeOf(e);
  }
}

describe("the ledger's store", () => {
  test("has no head before it is created, one entry after, and is created once", () =>
    inFolder(async (folder) => {
      await withLedger(folder, (ledger) => {
        expect(ledger.head()).toBeNull();
        expect([...ledger.entries()]).toEqual([]);
        expect(() => ledger.append({ kind: "planned", facts: {} })).toThrow(
          expect.objectContaining({ code: "ERR_LEDGER_MISSING" }),
        );
        const first = ledger.create();
        expect(first.entry).toMatchObject({
          sequence: 0,
          kind: "ledger-created",
          at: "2026-11-24T14:38:44Z",
        });
        expect(ledger.head()).toEqual({ ledger: first.entry.ledger, sequence: 0, head: first.digest });
        expect(() => ledger.create()).toThrow(expect.objectContaining({ code: "ERR_LEDGER_OTHER" }));
        expect(() => ledger.append({ kind: "ledger-created", facts: {} })).toThrow(
          expect.objectContaining({ code: "ERR_LEDGER_OTHER" }),
        );
      });
      for (const file of ["ledger.db", "ledger.head"])
        expect(lstatSync(join(folder, file)).mode & 0o777).toBe(0o600);
    }));

  test("streams what a filter asks for, in order, and lets the caller append meanwhile", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 1200);
      await withLedger(folder, (ledger) => {
        expect([...ledger.entries()].map((e) => e.entry.sequence)).toEqual(
          Array.from({ length: 1200 }, (_, i) => i),
        );
        const some = [...ledger.entries({ plan: "pl_3", target: "shop", kinds: ["planned"] })];
        expect(some.length).toBeGreaterThan(50);
        expect(
          some.every(
            ({ entry }) => entry.plan === "pl_3" && entry.target === "shop" && entry.kind === "planned",
          ),
        ).toBe(true);
        expect([...ledger.entries({ kinds: [] })]).toEqual([]);
        for (const _ of ledger.entries({ kinds: ["ledger-created"] }))
          ledger.append({ kind: "held", facts: {} });
        expect(ledger.head()?.sequence).toBe(1200);
        expect(ledger.verify([])).toMatchObject({ ok: true, entries: 1201 });
      });
    }));

  test("refuses an entry that could not be read back", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 2);
      await withLedger(folder, (ledger) => {
        const facts = { rows: "x".repeat(70_000) };
        expect(() => ledger.append({ kind: "planned", facts })).toThrow(
          expect.objectContaining({ code: "ERR_INTERNAL" }),
        );
        expect(ledger.head()?.sequence).toBe(1);
      });
    }));

  test("cannot be updated or deleted through SQLite as it stands", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 3);
      const sqlite = await loadSqlite();
      const db = new sqlite(join(folder, "ledger.db"));
      for (const sql of ["UPDATE entry SET kind = 'held'", "DELETE FROM entry WHERE sequence = 2"]) {
        expect(() => db.exec(sql)).toThrow(/append-only/);
      }
      db.close();
    }));

  test("loses nothing when eight processes append at once", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 1);
      const script = fileURLToPath(new URL("../support/append-child.js", import.meta.url));
      const names = Array.from({ length: 8 }, (_, i) => `pl_${i}`);
      const codes = await Promise.all(
        names.map(
          (name) =>
            new Promise<number | null>((resolve) => {
              spawn(process.execPath, [script, folder, name, "5"], { stdio: "inherit" }).on("close", resolve);
            }),
        ),
      );
      expect(codes).toEqual(names.map(() => 0));
      await withLedger(folder, (ledger) => {
        expect(ledger.verify([])).toMatchObject({ ok: true, entries: 41 });
        for (const plan of names) {
          expect([...ledger.entries({ plan })].map((e) => e.entry.facts["number"])).toEqual([0, 1, 2, 3, 4]);
        }
        const sidecar: unknown = JSON.parse(readFileSync(join(folder, "ledger.head"), "utf8"));
        expect(sidecar).toMatchObject({ sequence: 40, head: ledger.head()?.head });
      });
    }));
});

describe("attacks on a ledger of 200 entries", () => {
  const attacks: readonly (readonly [string, readonly string[], number])[] = [
    [
      "one byte of an entry edited",
      [
        "UPDATE entry SET bytes = CAST(replace(CAST(bytes AS TEXT), '\"rows\":57', '\"rows\":58') AS BLOB) WHERE sequence = 57",
      ],
      57,
    ],
    [
      "a recorded digest edited",
      ["UPDATE entry SET digest = (SELECT digest FROM entry WHERE sequence = 3) WHERE sequence = 57"],
      57,
    ],
    ["a middle one dropped", ["DELETE FROM entry WHERE sequence = 57"], 57],
    ["the first one dropped", ["DELETE FROM entry WHERE sequence = 0"], 0],
    [
      "a middle one dropped and the rest moved up",
      [
        "DELETE FROM entry WHERE sequence = 57",
        "UPDATE entry SET sequence = -sequence WHERE sequence > 57",
        "UPDATE entry SET sequence = -sequence - 1 WHERE sequence < 0",
      ],
      57,
    ],
    [
      "two swapped",
      [
        "UPDATE entry SET sequence = -57 WHERE sequence = 57",
        "UPDATE entry SET sequence = 57 WHERE sequence = 58",
        "UPDATE entry SET sequence = 58 WHERE sequence = -57",
      ],
      57,
    ],
    [
      "one inserted",
      [
        "UPDATE entry SET sequence = -sequence WHERE sequence > 56",
        "UPDATE entry SET sequence = -sequence + 1 WHERE sequence < 0",
        "INSERT INTO entry SELECT 57, kind, target, plan, run, digest, bytes FROM entry WHERE sequence = 56",
      ],
      57,
    ],
    [
      "one inserted before the first",
      ["INSERT INTO entry SELECT -1, kind, target, plan, run, digest, bytes FROM entry WHERE sequence = 0"],
      0,
    ],
    ["a rejection hidden from look-ups by plan", ["UPDATE entry SET plan = 'pl_zz' WHERE sequence = 57"], 57],
    ["a kind changed in its column", ["UPDATE entry SET kind = 'held' WHERE sequence = 57"], 57],
    ["the last one dropped", ["DELETE FROM entry WHERE sequence = 199"], 199],
    ["all of them dropped", ["DELETE FROM entry"], 0],
    [
      "an index that hides rows",
      ["DROP INDEX entry_plan", "CREATE INDEX entry_plan ON entry (plan, sequence) WHERE plan = 'pl_1'"],
      0,
    ],
  ];

  test.each(attacks)("%s", (_name, statements, firstBad) =>
    inFolder(async (folder) => {
      await makeLedger(folder, 200);
      await tamper(folder, ...statements);
      await withLedger(folder, (ledger) => expect(ledger.verify([])).toMatchObject({ ok: false, firstBad }));
    }),
  );

  test("a trigger taken away", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 5);
      const sqlite = await loadSqlite();
      const db = new sqlite(join(folder, "ledger.db"));
      db.exec("DROP TRIGGER entry_no_delete");
      db.close();
      await withLedger(folder, (ledger) => expect(ledger.verify([]).ok).toBe(false));
    }));

  test("the last one dropped: refused by the next append, too, and by a mark kept elsewhere once the sidecar is gone", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 200);
      const head = await withLedger(folder, (l) => l.head());
      if (head === null) throw new Error("no head");
      await tamper(folder, "DELETE FROM entry WHERE sequence = 199");
      expect(await appendCode(folder)).toBe("ERR_LEDGER_BROKEN");
      rmSync(join(folder, "ledger.head"));
      expect(await appendCode(folder)).toBe("ERR_LEDGER_BROKEN");
      const marker = { ...head, where: "the marker of elb-prod" };
      await withLedger(folder, (ledger) =>
        expect(ledger.verify([marker])).toMatchObject({ ok: false, firstBad: 199 }),
      );
    }));

  test("the whole file replaced by an older copy", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 100);
      copyFileSync(join(folder, "ledger.db"), join(folder, "older"));
      await withLedger(folder, (ledger) => {
        for (let i = 0; i < 100; i++) ledger.append({ kind: "planned", facts: {} });
      });
      renameSync(join(folder, "older"), join(folder, "ledger.db"));
      await withLedger(folder, (ledger) =>
        expect(ledger.verify([])).toMatchObject({ ok: false, firstBad: 100 }),
      );
      expect(await appendCode(folder)).toBe("ERR_LEDGER_BROKEN");
    }));

  test("the whole file replaced by another ledger, sidecar and all: found by an anchor", () =>
    inFolder(async (folder) =>
      inFolder(async (other) => {
        await makeLedger(folder, 200);
        await makeLedger(other, 300);
        const head = await withLedger(folder, (l) => l.head());
        if (head === null) throw new Error("no head");
        copyFileSync(join(other, "ledger.db"), join(folder, "ledger.db"));
        await withLedger(folder, (l) => expect(l.verify([]).ok).toBe(false));
        copyFileSync(join(other, "ledger.head"), join(folder, "ledger.head"));
        const marker = { ...head, where: "the marker of elb-prod" };
        await withLedger(folder, (l) => {
          expect(l.verify([])).toMatchObject({ ok: true, entries: 300 });
          expect(l.verify([marker])).toMatchObject({ ok: false, firstBad: 199 });
        });
      }),
    ));

  test("the ledger removed is missing, not empty", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 5);
      rmSync(join(folder, "ledger.db"));
      await expect(openLedger(folder, deps)).rejects.toMatchObject({ code: "ERR_LEDGER_MISSING" });
      writeFileSync(join(folder, "ledger.db"), "");
      await expect(openLedger(folder, deps)).rejects.toMatchObject({ code: "ERR_LEDGER_BROKEN" });
    }));

  test("a file that is no ledger, or no plain file", () =>
    inFolder(async (folder) => {
      writeFileSync(
        join(folder, "ledger.db"),
        "not a database, but long enough to be read as one".repeat(100),
      );
      await expect(openLedger(folder, deps)).rejects.toMatchObject({ code: "ERR_LEDGER_BROKEN" });
      rmSync(join(folder, "ledger.db"));
      symlinkSync("/dev/null", join(folder, "ledger.db"));
      await expect(openLedger(folder, deps)).rejects.toMatchObject({ code: "ERR_STORE_UNSAFE" });
    }));

  test.each(["", "{}", "x", '{"format":"holdpoint-ledger-head/2"}'])("a sidecar that reads %j", (text) =>
    inFolder(async (folder) => {
      await makeLedger(folder, 5);
      writeFileSync(join(folder, "ledger.head"), text);
      await expect(openLedger(folder, deps)).rejects.toMatchObject({ code: "ERR_LEDGER_BROKEN" });
    }),
  );

  test("a sidecar that is behind, as a killed process leaves it, is caught up", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 3);
      copyFileSync(join(folder, "ledger.head"), join(folder, "behind"));
      await withLedger(folder, (l) => l.append({ kind: "planned", facts: {} }));
      renameSync(join(folder, "behind"), join(folder, "ledger.head"));
      await withLedger(folder, (l) => {
        expect(l.verify([]).ok).toBe(true);
        l.append({ kind: "planned", facts: {} });
        expect(JSON.parse(readFileSync(join(folder, "ledger.head"), "utf8"))).toMatchObject({ sequence: 4 });
      });
    }));

  test("a ledger just created and killed before its sidecar goes on", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 1);
      rmSync(join(folder, "ledger.head"));
      await withLedger(folder, (l) => {
        expect(l.verify([])).toMatchObject({ ok: true, entries: 1 });
        l.append({ kind: "planned", facts: {} });
        expect(l.verify([])).toMatchObject({ ok: true, entries: 2 });
      });
    }));

  test("any byte of the file flipped: found, or no entry reads differently", () =>
    inFolder(async (folder) => {
      await makeLedger(folder, 12);
      const path = join(folder, "ledger.db");
      const original = readFileSync(path);
      const entries = await withLedger(folder, (l) => [...l.entries()]);
      for (let i = 0; i < original.length; i += 61) {
        const bytes = Buffer.from(original);
        bytes[i] = (bytes[i] ?? 0) ^ 0x01;
        writeFileSync(path, bytes);
        let found: unknown;
        try {
          found = await withLedger(folder, (l) => (l.verify([]).ok ? [...l.entries()] : "refused"));
        } catch (e) {
          found = codeOf(e)?.startsWith("ERR_") === true ? "refused" : e;
        }
        if (found !== "refused") expect(found).toEqual(entries);
      }
    }));
});
