/** Who an SQLite database says it is. */
import { statSync } from "node:fs";
import type { Evidence } from "../../environment/evidence.js";
import type { Identification } from "../../target/target.js";
import { readableBytes } from "../../target/vitals.js";
import type { Connection } from "./driver.js";
import { readMarker } from "./marker.js";

/** `Target.identify`. Reads the database and the state of its files; opens none of them itself. */
export function identify(connection: Connection): Identification {
  return {
    marker: readMarker(connection),
    place: placeOf(connection.path),
    signals: sizeSignals(connection),
    description: describe(connection),
  };
}

/**
 * What a copy of the file cannot have: where it lies, its inode, and when that inode was born. File systems
 * that do not keep a birth time say 0 or the time of the last change; then it is left out.
 */
export function placeOf(path: string): Readonly<Record<string, string>> {
  const stat = statSync(path, { bigint: true });
  const born = stat.birthtimeNs;
  const place = { path, inode: String(stat.ino) };
  return born === 0n || born === stat.ctimeNs ? place : { ...place, born: String(born) };
}

function sizeSignals({ path }: Connection): readonly Evidence[] {
  const wal = statSync(`${path}-wal`, { throwIfNoEntry: false });
  const main = statSync(path);
  const newest = new Date(Math.max(main.mtimeMs, wal?.mtimeMs ?? 0));
  return [
    informs("data size", readableBytes(main.size + (wal?.size ?? 0))),
    informs("last write", `${newest.toISOString().slice(0, 19)}Z`),
  ];
}

function informs(source: string, detail: string): Evidence {
  return { source, side: "target", strength: "none", says: null, state: "informs", detail };
}

function describe(connection: Connection): string {
  const version = String(connection.value("SELECT sqlite_version()"));
  const bytes = Number(connection.value("PRAGMA page_count")) * Number(connection.value("PRAGMA page_size"));
  const wal = connection.value("PRAGMA journal_mode") === "wal";
  return `SQLite ${version}, ${connection.path}, ${readableBytes(bytes)}, ${wal ? "WAL" : "rollback journal"}`;
}
