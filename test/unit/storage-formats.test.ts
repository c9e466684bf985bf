/** The examples on the format pages are what the code reads and writes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "@jest/globals";
import { sourceOf } from "../../src/changeset/source.js";
import { parseEntry, sealEntry, verifyChain } from "../../src/ledger/chain.js";
import { manifestDigest, parseManifest } from "../../src/snapshot/manifest.js";
import { readHeadFile, writeHeadFile } from "../../src/storage/ledger-head.js";
import { writePlanFile } from "../../src/storage/plan-file.js";
import { gone, ordersSet } from "../support/tables.js";
import { inFolder } from "../support/temporary.js";

const pages = new URL("../../../docs/formats/", import.meta.url);

/** The lines of a page's examples of one language, one list for each. */
function examples(page: string, language: string): readonly (readonly string[])[] {
  const text = readFileSync(new URL(page, pages), "utf8");
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n([^\`]*)^\`\`\``, "gm"))].map((m) =>
    (m[1] ?? "").trimEnd().split("\n"),
  );
}

test("ledger.md: two entries that are a chain, the head, the sidecar", () =>
  inFolder((folder) => {
    const [entries = [], sidecar = []] = examples("ledger.md", "json");
    const [head = []] = examples("ledger.md", "text");
    const stored = entries.map((text) => {
      const parsed = parseEntry(Buffer.from(text));
      if (!parsed.ok) throw new Error(parsed.why);
      return { bytes: Buffer.from(text), digest: sealEntry(parsed.entry).digest };
    });
    expect(verifyChain(stored, null, [])).toEqual({ ok: true, entries: 2, head: head[0] });
    const path = join(folder, "ledger.head");
    writeHeadFile(path, { ledger: "lg_3v8k1m9q2xw7r5tz", sequence: 1, head: stored[1]?.digest ?? "sha256:" });
    expect(readFileSync(path, "utf8")).toBe(sidecar[0]);
    expect(readHeadFile(path)).toMatchObject({ sequence: 1, head: head[0] });
  }));

test("snapshot.md: a manifest, and its digest", () => {
  const parsed = parseManifest(Buffer.from(examples("snapshot.md", "json")[0]?.[0] ?? ""));
  if (!parsed.ok) throw new Error(parsed.why);
  expect(manifestDigest(parsed.manifest)).toBe(examples("snapshot.md", "text")[0]?.[0]);
});

test("plan-file.md: the first bytes of a plan", () =>
  inFolder(async (folder) => {
    const path = join(folder, "p.hpplan");
    const source = sourceOf(ordersSet(gone(1)));
    await writePlanFile(path, {
      statement: Buffer.from('{"a":1}'),
      signature: Buffer.from("SSHSIG"),
      source,
    });
    const shown = (examples("plan-file.md", "text")[0] ?? [])
      .flatMap((line) => line.slice(6, 53).trim().split(" "))
      .filter((byte) => /^[0-9a-f]{2}$/.test(byte));
    expect(shown.length).toBeGreaterThan(50);
    expect(
      [...readFileSync(path).subarray(0, shown.length)].map((b) => b.toString(16).padStart(2, "0")),
    ).toEqual(shown);
  }));
