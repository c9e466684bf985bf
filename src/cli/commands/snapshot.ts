/** `snapshot`: what is kept beside the target, and the proof that it can be brought back. */
import { resolve } from "node:path";
import { UsageError } from "../../base/errors.js";
import { drill } from "../../operations/drill.js";
import {
  diffSnapshots,
  listSnapshots,
  type ListedSnapshot,
  refuseRestoreOver,
  restoreSnapshot,
  verifySnapshot,
} from "../../operations/kept-snapshots.js";
import { takeSnapshot, type TakenLevel } from "../../operations/snapshot.js";
import { count, plural, seconds, when } from "../../render/numbers.js";
import { renderDrill, renderFacts, renderSnapshotDiff, renderSnapshots } from "../../render/snapshot.js";
import type { SnapshotManifest } from "../../snapshot/snapshot.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { maskOf } from "../views/conflicts.js";
import { patternViews } from "../views/rows.js";
import { forget, prune } from "./snapshot-destroy.js";

export const registerSnapshot: Register = (program, run, tail) => {
  const snapshot = program.command("snapshot");
  describeCommand(snapshot, {
    group: "Lifecycle",
    summary: "keep tables or a whole database, verify, compare, restore elsewhere, drill",
    examples: [
      {
        line: "holdpoint snapshot take --on elb-prod",
        what: "everything; what is already kept costs nothing",
      },
      { line: "holdpoint snapshot drill --on elb-prod", what: "break and rescue a copy, and measure it" },
    ],
    exits: [33, 35, 36, 38, 39],
  });
  for (const register of [take, list, show, verify, diff, restore, prune, forget, drillCommand])
    register(snapshot, run, tail);
};

const take: Register = (parent, run) => {
  const command = parent
    .command("take")
    .requiredOption("--on <target>", "the target, named")
    .option("--table <name>", "keep this table only; repeatable", collect, [])
    .option(
      "--snapshot <level>",
      "tables (the rows of all), or database (with its schema; PostgreSQL: by pg_dump)",
    )
    .action((flags: TakeFlags) => run("snapshot-take", async (cx) => taken(cx, flags)));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "keep a target as it is, and read it back",
    description:
      "Without --table an SQLite database page by page (pages that an earlier snapshot has are not stored again), and the rows of all " +
      "tables of a PostgreSQL database; with --snapshot database the whole of it by pg_dump, restored once to a scratch database. " +
      "A snapshot counts only when it was read back, compared, and checked in a scratch copy.",
    examples: [
      { line: "holdpoint snapshot take --on elb-prod", what: "the whole database" },
      { line: "holdpoint snapshot take --on elb-prod --table back_ends", what: "one table" },
      {
        line: "holdpoint snapshot take --on shop-prod --snapshot database",
        what: "on PostgreSQL: by pg_dump, restored once",
      },
    ],
    exits: [30, 33, 35, 36, 38, 39],
  });
};

interface TakeFlags {
  readonly on: string;
  readonly table: readonly string[];
  readonly snapshot?: string;
}

function levelOf({ table, snapshot }: TakeFlags): TakenLevel | null {
  if (snapshot === undefined) return null;
  if (snapshot !== "tables" && snapshot !== "database")
    throw new UsageError({
      code: "ERR_USAGE",
      message: `--snapshot is tables or database, not ${snapshot}`,
    });
  if (snapshot === "tables" || table.length === 0) return snapshot;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "--table keeps tables, and --snapshot database keeps everything: say one of them",
  });
}

async function taken(cx: Context, flags: TakeFlags): Promise<Outcome> {
  const { on, table } = flags;
  const { manifest, digest, tookMs, stored } = await takeSnapshot(
    await cx.tools(),
    on,
    table,
    levelOf(flags),
  );
  return {
    result: {
      snapshot: manifest.id,
      target: on,
      level: manifest.level,
      tables: manifest.tables.map((t) => t.name),
      rows: manifest.rows,
      manifest: digest,
      bytes: manifest.file?.bytes ?? null,
      stored_bytes: stored?.bytes ?? null,
      took_ms: tookMs,
    },
    text: cx.screen(renderFacts, {
      headline: `Kept ${plural(manifest.rows, "row")} of ${on} in ${seconds(tookMs / 1000)}, read back and compared.`,
      facts: [
        { label: "Snapshot", text: manifest.id },
        {
          label: "Holds",
          text: `${manifest.level === "database" ? "the whole database" : "tables"}: ${manifest.tables.map((t) => t.name).join(", ")}`,
        },
        ...(stored === null
          ? []
          : [
              {
                label: "Stored",
                text: `${megabytes(stored.bytes)} for ${megabytes(manifest.file?.bytes ?? 0)}, ${plural(stored.added, manifest.dump === undefined ? "new page" : "new piece")}`,
              },
            ]),
      ],
      state: "The target was only read.",
      next: [{ actor: "anyone", argv: ["holdpoint", "rescue", "--on", on, "--from", manifest.id] }],
    }),
  };
}

/** What kind of file it is, where it is not one that the target itself works on. */
function dumpFact({ dump }: SnapshotManifest): readonly { readonly label: string; readonly text: string }[] {
  if (dump === undefined) return [];
  return [{ label: "Format", text: `a custom-format dump by ${dump.program}, of PostgreSQL ${dump.server}` }];
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

const list: Register = (parent, run) => {
  const command = parent
    .command("list")
    .option("--on <target>", "this target only")
    .action((flags: { readonly on?: string }) =>
      run("snapshot-list", async (cx) => {
        const found = await listSnapshots(await cx.tools(), flags.on ?? null);
        return {
          result: { snapshots: found.map(listedJson) },
          text: cx.screen(renderSnapshots, found.map(lineOf)),
        };
      }),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "what is kept, newest first",
    examples: [{ line: "holdpoint snapshot list --on elb-prod", what: "one target's" }],
    exits: [],
  });
};

function listedJson({
  record,
  manifest,
  neededBy,
  why,
  isRecorded,
}: ListedSnapshot): Record<string, unknown> {
  return {
    snapshot: record.id,
    target: record.target,
    at: record.at,
    level: manifest?.level ?? null,
    tables: manifest?.tables.map((t) => t.name) ?? [],
    rows: manifest?.rows ?? null,
    manifest: record.manifest,
    run: record.run,
    needed_by: neededBy,
    damage: isRecorded ? why : null,
    recorded: isRecorded,
  };
}

function lineOf({
  record,
  manifest,
  neededBy,
  why,
  isRecorded,
}: ListedSnapshot): Parameters<typeof renderSnapshots>[0][number] {
  const needed = neededBy.length === 0 ? "" : `, needed to undo ${neededBy.join(", ")}`;
  return {
    id: record.id,
    at: record.at,
    target: record.target,
    level: manifest?.level ?? "?",
    rows: manifest?.rows ?? null,
    note: !isRecorded
      ? `NOT RECORDED: its taking was interrupted; holdpoint snapshot prune ${record.id}`
      : why === null
        ? record.run === null
          ? "by hand"
          : `for ${record.run}${needed}`
        : `DAMAGED: ${why}`,
  };
}

const show: Register = (parent, run) => {
  const command = parent
    .command("show")
    .argument("<snapshot>", "an id, or the beginning of one")
    .action((ref: string) => run("snapshot-show", async (cx) => checked(cx, ref, "holds")));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "what one snapshot holds",
    examples: [{ line: "holdpoint snapshot show sn_5c0e2fqa", what: "its tables, rows, size" }],
    exits: [35, 36],
  });
};

const verify: Register = (parent, run) => {
  const command = parent
    .command("verify")
    .argument("<snapshot>", "an id, or the beginning of one")
    .action((ref: string) => run("snapshot-verify", async (cx) => checked(cx, ref, "is whole")));
  describeCommand(command, {
    group: "Lifecycle",
    summary: "read a snapshot whole and hold it against the ledger",
    examples: [
      { line: "holdpoint snapshot verify sn_5c0e2fqa", what: "0 when it is whole, 36 when it is not" },
    ],
    exits: [35, 36],
  });
};

/** Showing reads it whole too: nothing is said about bytes that were not checked. */
async function checked(cx: Context, ref: string, what: string): Promise<Outcome> {
  const { record, manifest } = await verifySnapshot(await cx.tools(), ref);
  return {
    result: {
      snapshot: record.id,
      target: record.target,
      at: record.at,
      level: manifest.level,
      tables: manifest.tables.map((t) => t.name),
      rows: manifest.rows,
      bytes: manifest.file?.bytes ?? null,
      manifest: record.manifest,
      run: record.run,
      verified: true,
    },
    text: cx.screen(renderFacts, {
      headline: `${record.id} ${what}${what === "holds" ? ` ${plural(manifest.rows, "row")}` : `: ${plural(manifest.rows, "row")} read back, digests as in the ledger`}.`,
      facts: [
        { label: "Target", text: `${record.target}, as of ${when(manifest.takenAt)} UTC` },
        { label: "Tables", text: manifest.tables.map((t) => t.name).join(", ") },
        { label: "Level", text: manifest.level },
        ...(manifest.file === undefined
          ? []
          : [{ label: "File", text: `${count(manifest.file.bytes)} bytes` }]),
        ...dumpFact(manifest),
        ...(record.run === null ? [] : [{ label: "Run", text: record.run }]),
      ],
      state: "Nothing was changed.",
      next: [],
    }),
  };
}

const diff: Register = (parent, run) => {
  const command = parent
    .command("diff")
    .argument("<snapshot>", "an id, or the beginning of one")
    .argument("[other]", "another snapshot, or now", "now")
    .option("--table <name>", "this table only; repeatable", collect, [])
    .action((from: string, to: string, flags: { readonly table: readonly string[] }) =>
      run("snapshot-diff", async (cx) => {
        const tools = await cx.tools();
        const found = await diffSnapshots(tools, from, to === "now" ? null : to, flags.table);
        const how = maskOf(tools.project.config.targets[found.from.target]?.mask);
        const { tables } = found.changed;
        const rows = tables.reduce((n, t) => n + t.insert + t.update + t.delete, 0);
        return {
          result: {
            from: found.from.id,
            to: found.to?.id ?? "now",
            rows,
            tables: tables.map((t) => ({
              table: t.name,
              insert: t.insert,
              update: t.update,
              delete: t.delete,
            })),
          },
          text: cx.screen(renderSnapshotDiff, {
            from: found.from.id,
            to: found.to?.id ?? `${found.from.target} now`,
            rows,
            patterns: patternViews(found.changed, how),
          }),
        };
      }),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "what changed between a snapshot and another one, or now",
    examples: [
      { line: "holdpoint snapshot diff sn_5c0e2fqa now", what: "in patterns; together they cover every row" },
    ],
    exits: [33, 34, 35, 36, 39],
  });
};

const restore: Register = (parent, run) => {
  const command = parent
    .command("restore")
    .argument("<snapshot>", "an id, or the beginning of one")
    .option("--to <file>", "a new file; nothing is overwritten")
    .option(
      "--over <target>",
      "never done: shows which newer rows of the target it would destroy, and the way to merge",
    )
    .action((ref: string, flags: { readonly to?: string; readonly over?: string }) =>
      run("snapshot-restore", async (cx) => {
        if (flags.over !== undefined && flags.to === undefined)
          return refuseRestoreOver(await cx.tools(), ref, flags.over);
        if (flags.to === undefined || flags.over !== undefined)
          throw new UsageError({
            code: "ERR_USAGE",
            message: "say where to: --to FILE, or --over TARGET to see what that would destroy",
          });
        const path = resolve(cx.cwd, flags.to);
        const manifest = await restoreSnapshot(await cx.tools(), ref, path);
        return {
          result: { snapshot: manifest.id, file: path, level: manifest.level, rows: manifest.rows },
          text: cx.screen(renderFacts, {
            headline: `Restored ${plural(manifest.rows, "row")} as of ${when(manifest.takenAt)} UTC.`,
            facts: [{ label: "File", text: path }, ...dumpFact(manifest)],
            state:
              "A new file was written; the target was not touched. To bring rows back into the target, use rescue: it keeps what was written since.",
            next: [
              ...(manifest.dump === undefined
                ? []
                : [
                    {
                      actor: "dba" as const,
                      argv: ["pg_restore", "--no-owner", "--dbname=NEW_DATABASE", path],
                      text: "into a new, empty database, never over the target",
                    },
                  ]),
              {
                actor: "anyone",
                argv: ["holdpoint", "rescue", "--on", manifest.target, "--from", manifest.id],
              },
            ],
          }),
        };
      }),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "put a snapshot into a new file, never over anything",
    examples: [
      {
        line: "holdpoint snapshot restore sn_5c0e2fqa --to /srv/tmp/elb-0900.db",
        what: "to look, or to start elsewhere",
      },
      {
        line: "holdpoint snapshot restore sn_5c0e2fqa --over elb-prod",
        what: "what a restore over the target would destroy; merge instead",
      },
    ],
    exits: [35, 36],
  });
};

const drillCommand: Register = (parent, run) => {
  const command = parent
    .command("drill")
    .requiredOption("--on <target>", "the target, named; it is only read")
    .option("--from <snapshot>", "drill with this snapshot instead of a fresh one")
    .action((flags: { readonly on: string; readonly from?: string }) =>
      run("snapshot-drill", async (cx) => {
        const d = await drill(await cx.tools(), flags.on, flags.from ?? null);
        return {
          result: {
            snapshot: d.snapshot,
            table: d.table,
            broken: d.broken,
            written: d.written,
            restored: d.restored,
            lost: d.lost,
            missing: d.missing,
            take_ms: d.takeMs,
            restore_ms: d.restoreMs,
            rescue_ms: d.rescueMs,
          },
          text: cx.screen(renderDrill, {
            banner: { verdict: d.environment, target: d.target, note: "drill on a copy" },
            ...d,
            seconds: { take: d.takeMs / 1000, restore: d.restoreMs / 1000, rescue: d.rescueMs / 1000 },
          }),
        };
      }),
    );
  describeCommand(command, {
    group: "Lifecycle",
    summary: "break and rescue a copy; measures the time and what was lost, into the ledger",
    examples: [{ line: "holdpoint snapshot drill --on elb-prod", what: "every night, before you need it" }],
    exits: [30, 33, 35, 36, 38, 39],
  });
};
