/**
 * The child of `query.ts`: answers one question about one working file on stdout, and nothing else. Started as
 * a program, never imported.
 */
import { readFileSync, writeSync } from "node:fs";
import { canonical, type Json } from "../base/canonical.js";
import { messageOf } from "../base/errors.js";
import type { Value } from "../changeset/value.js";
import { valueToJson } from "./cells.js";
import type { QueryRequest } from "./query.js";
import { type Database, loadSqlite } from "./sqlite.js";

const text = canonical(await answer(JSON.parse(readFileSync(0, "utf8")) as QueryRequest));
const bytes = Buffer.from(text, "utf8");
for (let done = 0; done < bytes.length;) done += writeSync(1, bytes, done);

async function answer(request: QueryRequest): Promise<Json> {
  const sqlite = await loadSqlite();
  const db = new sqlite(request.path, { readonly: true, fileMustExist: true });
  try {
    db.pragma("query_only = ON");
    db.pragma("trusted_schema = OFF");
    return ask(db, request);
  } catch (e) {
    return { kind: "refused", why: messageOf(e) };
  } finally {
    db.close();
  }
}

/**
 * The driver prepares exactly one statement. Of those, ATTACH and PRAGMA can count as read-only, so only the
 * words that begin a question pass; what begins with them and writes (`WITH … DELETE`) is not read-only.
 */
function ask(db: Database, request: QueryRequest): Json {
  const first = /^(?:\s|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)*([A-Za-z]+)/.exec(request.sql)?.[1]?.toUpperCase();
  if (!["SELECT", "WITH", "VALUES"].includes(first ?? ""))
    return { kind: "refused", why: "expected one SELECT" };
  const statement = db.prepare(request.sql);
  if (!statement.reader || !statement.readonly)
    return { kind: "refused", why: "expected a question, found a statement that writes" };
  const rows: Json[][] = [];
  let room = request.maxBytes;
  for (const row of statement.raw(true).safeIntegers(true).iterate() as IterableIterator<readonly Value[]>) {
    room -= row.reduce<number>((sum, v) => sum + sizeOf(v), 0);
    if (rows.length === request.maxRows || room < 0) return reply(statement, rows, true);
    rows.push(row.map(valueToJson));
  }
  return reply(statement, rows, false);
}

function reply(statement: ReturnType<Database["prepare"]>, rows: Json[][], truncated: boolean): Json {
  return { kind: "answer", columns: statement.columns().map((c) => c.name), rows, truncated };
}

function sizeOf(v: Value): number {
  if (typeof v === "string") return 16 + v.length;
  return v instanceof Uint8Array ? 16 + v.length : 16;
}
