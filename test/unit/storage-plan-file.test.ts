import { createHash } from "node:crypto";
import {
  copyFileSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "@jest/globals";
import fc from "../support/fast-check.js";
import { digestOf } from "../../src/base/digest.js";
import { codeOf } from "../../src/base/errors.js";
import { idFromDigest } from "../../src/base/ids.js";
import type { Change, ChangeSink, TableShape } from "../../src/changeset/change.js";
import { digestOfSource } from "../../src/changeset/encode.js";
import { changeSet, sourceOf } from "../../src/changeset/source.js";
import { readPlanFile, writePlanFile } from "../../src/storage/plan-file.js";
import { openPlans } from "../../src/storage/plans.js";
import { changeSetArbitrary } from "../support/changeset-arbitrary.js";
import { born, gone, ordersSet, paid } from "../support/tables.js";
import { inFolder } from "../support/temporary.js";

const cs = ordersSet(paid(1), gone(2), born(3));
const plan = { statement: Buffer.from('{"a":1}'), signature: Buffer.from("SSHSIG"), source: sourceOf(cs) };
const typed = { followLinks: true };

function collector(): ChangeSink & { readonly tables: TableShape[]; readonly changes: Change[] } {
  const tables: TableShape[] = [];
  const changes: Change[] = [];
  return { tables, changes, table: (t) => void tables.push(t), add: (c) => void changes.push(c) };
}

/** Reads a file whole. "accepted", or the code of the refusal. */
async function outcome(path: string): Promise<string | undefined> {
  try {
    await (await readPlanFile(path, typed)).loadInto(collector());
    return "accepted";
  } catch (e) {
    return codeOf(e);
  }
}

/** The bytes before the closing digest, with that digest made anew: what somebody does who knows the format. */
function resealed(content: Uint8Array): Buffer {
  return Buffer.concat([content, createHash("sha256").update(content).digest()]);
}

describe("a plan's file", () => {
  test("law: reads back as it was written", () =>
    inFolder((folder) =>
      fc.assert(
        fc.asyncProperty(
          changeSetArbitrary,
          fc.uint8Array(),
          fc.option(fc.uint8Array({ minLength: 1 })),
          async (any, statement, signature) => {
            const path = join(folder, "p.hpplan");
            const { digest } = await writePlanFile(
              path,
              { statement, signature, source: sourceOf(any) },
              "replace",
            );
            const file = await readPlanFile(path, typed);
            expect(file.digest).toBe(digest);
            expect(Buffer.from(file.statement).equals(statement)).toBe(true);
            expect(file.signature === null ? null : [...file.signature]).toEqual(
              signature === null ? null : [...signature],
            );
            const sink = collector();
            const loaded = await file.loadInto(sink);
            expect(loaded.digest).toBe(digestOfSource(sourceOf(any)).digest);
            expect(digestOfSource(sourceOf(changeSet(sink.tables, sink.changes))).digest).toBe(loaded.digest);
          },
        ),
        { numRuns: 60 },
      ),
    ));

  test("is private, leaves no other file, and is never overwritten unasked", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      expect(lstatSync(path).mode & 0o777).toBe(0o600);
      const bytes = readFileSync(path);
      await expect(writePlanFile(path, { ...plan, signature: null })).rejects.toMatchObject({
        code: "ERR_USAGE",
      });
      expect(readFileSync(path).equals(bytes)).toBe(true);
      expect(readdirSync(folder)).toEqual(["p.hpplan"]);
      expect(bytes.subarray(0, 17).toString()).toBe("holdpoint-plan/1\n");
    }));

  test("with any one byte altered is refused as altered", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      const original = readFileSync(path);
      for (let i = 0; i < original.length; i++) {
        for (const flip of [0x01, 0x80, 0xff]) {
          const bytes = Buffer.from(original);
          bytes[i] = (bytes[i] ?? 0) ^ flip;
          writeFileSync(path, bytes);
          expect([i, flip, await outcome(path)]).toEqual([i, flip, "ERR_PLAN_ALTERED"]);
        }
      }
    }));

  test("cut anywhere, or with a byte more, is refused", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      const original = readFileSync(path);
      for (let length = 1; length < original.length; length++) {
        writeFileSync(path, original.subarray(0, length));
        expect([length, await outcome(path)]).toEqual([length, "ERR_PLAN_ALTERED"]);
      }
      writeFileSync(path, "");
      expect(await outcome(path)).toBe("ERR_PLAN_UNKNOWN");
      for (const more of [Buffer.concat([original, Buffer.of(0)]), Buffer.concat([Buffer.of(0), original])]) {
        writeFileSync(path, more);
        expect(await outcome(path)).toMatch(/^ERR_PLAN_(ALTERED|UNKNOWN)$/);
      }
    }));

  test("with any one byte altered and the closing digest made anew never gives other rows under the same digest", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      const content = readFileSync(path).subarray(0, -32);
      const expected = digestOfSource(plan.source).digest;
      for (let i = 0; i < content.length; i++) {
        const bytes = Buffer.from(content);
        bytes[i] = (bytes[i] ?? 0) ^ 0x01;
        writeFileSync(path, resealed(bytes));
        let read: string;
        try {
          const file = await readPlanFile(path, typed);
          const sink = collector();
          const { digest } = await file.loadInto(sink);
          const sameWords =
            Buffer.from(file.statement).equals(plan.statement) &&
            Buffer.from(file.signature ?? []).equals(plan.signature);
          read = digest === expected && sameWords ? "the same plan" : "another plan, by digest";
        } catch (e) {
          read = codeOf(e) ?? "?";
        }
        expect([i, read]).toEqual([i, expect.stringMatching(/ERR_PLAN_ALTERED|another plan, by digest/)]);
      }
    }));

  test("with bytes between its blocks and its closing digest is refused, however well sealed", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      const content = readFileSync(path).subarray(0, -32);
      writeFileSync(path, resealed(Buffer.concat([content, Buffer.of(7)])));
      expect(await outcome(path)).toBe("ERR_PLAN_ALTERED");
    }));

  test("that declares more than it has, or than is read, costs nothing", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      const length = Buffer.alloc(4);
      length.writeUInt32BE(0xffff_ffff);
      writeFileSync(
        path,
        resealed(Buffer.concat([Buffer.from("holdpoint-plan/1\n"), length, Buffer.alloc(100)])),
      );
      expect(await outcome(path)).toBe("ERR_PLAN_ALTERED");
      await writePlanFile(path, plan, "replace");
      await expect(readPlanFile(path, { ...typed, fileBytes: 50 })).rejects.toMatchObject({
        code: "ERR_PLAN_ALTERED",
      });
      const file = await readPlanFile(path, { ...typed, rawBytes: 10 });
      await expect(file.loadInto(collector())).rejects.toMatchObject({ code: "ERR_PLAN_ALTERED" });
    }));

  test("exchanged between being checked and being loaded is refused", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      const file = await readPlanFile(path, typed);
      await writePlanFile(join(folder, "other"), {
        ...plan,
        source: sourceOf(ordersSet(paid(1), gone(2), born(4))),
      });
      renameSync(join(folder, "other"), path);
      await expect(file.loadInto(collector())).rejects.toMatchObject({ code: "ERR_PLAN_ALTERED" });
    }));

  test("passes on what the sink refuses, in its own words", () =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      await writePlanFile(path, plan);
      const full = new Error("no room");
      const sink: ChangeSink = {
        table: () => undefined,
        add: () => {
          throw full;
        },
      };
      await expect((await readPlanFile(path, typed)).loadInto(sink)).rejects.toBe(full);
    }));

  test.each<[string, (path: string) => void]>([
    ["a text", (path) => writeFileSync(path, "select 1;\n".repeat(20))],
    ["a snapshot", (path) => writeFileSync(path, "holdpoint-snapshot/1\n")],
    ["a folder", (path) => mkdirSync(path)],
    ["nothing at all", () => undefined],
  ])("that is %s is no plan", (_name, make) =>
    inFolder(async (folder) => {
      const path = join(folder, "p.hpplan");
      make(path);
      expect(await outcome(path)).toMatch(_name === "a snapshot" ? /^ERR_PLAN_/ : /^ERR_PLAN_UNKNOWN$/);
    }),
  );
});

describe("the store's plans", () => {
  const statements = Array.from({ length: 60 }, (_, i) => Buffer.from(`{"n":${i}}`));
  const idOf = (statement: Uint8Array): string => idFromDigest("pl", digestOf(statement));
  const statement = statements[0] ?? Buffer.alloc(0);
  const id = idOf(statement);

  test("are found by id, by unique prefix, by file, and listed", () =>
    inFolder(async (folder) => {
      const plans = openPlans({ plans: folder });
      for (const s of statements) await plans.save({ ...plan, statement: s, id: idOf(s) });
      expect(await plans.ids()).toEqual(statements.map(idOf).sort());
      expect((await plans.read(id)).statement).toEqual(statement);
      expect((await plans.read(id.slice(0, 12))).path).toBe(plans.find(id));
      expect((await plans.read(plans.find(id))).statement).toEqual(statement);
      const letters = statements.map((s) => idOf(s).slice(0, 4));
      const shared = letters.find((l, i) => letters.indexOf(l) !== i) ?? "";
      await expect(plans.read(shared)).rejects.toMatchObject({ code: "ERR_PLAN_AMBIGUOUS" });
      await expect(plans.read("pl_0000000000000000")).rejects.toMatchObject({ code: "ERR_PLAN_UNKNOWN" });
      for (const ref of ["pl_", "", "../x", join(folder, "none.hpplan")]) {
        await expect(plans.read(ref)).rejects.toMatchObject({ code: "ERR_PLAN_UNKNOWN" });
        expect(() => plans.find(ref)).toThrow(expect.objectContaining({ code: "ERR_PLAN_UNKNOWN" }));
      }
    }));

  test("are stored once, with a copy where asked", () =>
    inFolder(async (folder) => {
      mkdirSync(join(folder, "plans"));
      const plans = openPlans({ plans: join(folder, "plans") });
      const out = join(folder, "for-the-approver.hpplan");
      expect(await plans.save({ ...plan, statement, id, out })).toBe(out);
      expect(readFileSync(out).equals(readFileSync(plans.find(id)))).toBe(true);
      expect(await plans.save({ ...plan, statement, id })).toBe(plans.find(id));
      await expect(plans.save({ ...plan, statement, id, out })).rejects.toMatchObject({ code: "ERR_USAGE" });
      await expect(plans.save({ ...plan, statement, id, signature: null })).rejects.toMatchObject({
        code: "ERR_PLAN_ALTERED",
      });
      await expect(plans.save({ ...plan, statement, id: idOf(Buffer.from("x")) })).rejects.toMatchObject({
        code: "ERR_PLAN_ALTERED",
      });
    }));

  test("are refused when another plan, or a link, stands under the name", () =>
    inFolder(async (folder) => {
      const plans = openPlans({ plans: folder });
      const other = statements[1] ?? Buffer.alloc(0);
      await plans.save({ ...plan, statement: other, id: idOf(other) });
      const path = join(folder, `${id}.hpplan`);
      copyFileSync(plans.find(idOf(other)), path);
      await expect(plans.read(id)).rejects.toMatchObject({ code: "ERR_PLAN_ALTERED" });
      await writePlanFile(path, { ...plan, statement }, "replace");
      linkSync(path, join(folder, "elsewhere"));
      renameSync(path, join(folder, "moved"));
      symlinkSync(join(folder, "elsewhere"), path);
      await expect(plans.read(id)).rejects.toMatchObject({ code: "ERR_PLAN_ALTERED" });
      expect((await plans.read(join(folder, "elsewhere"))).statement).toEqual(statement);
    }));
});
