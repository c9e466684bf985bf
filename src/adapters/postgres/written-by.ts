/** Which rows a transaction wrote, by the number that stands in each row (`xmin`). */
import { UsageError } from "../../base/errors.js";
import type { RowKey, TableShape } from "../../changeset/change.js";
import type { Session } from "./driver.js";
import { quote } from "./names.js";
import type { TableInfo } from "./schema.js";
import { toRow } from "./values.js";

/** Rows keep the lower 32 bits of a transaction's number; the numbers below 3 mean no transaction. */
const ROUND = 2n ** 32n;
const FIRST = 3n;
/** Numbers are told apart as far as half a round back; what is older may be another transaction's. */
const TOLD_APART = 2n ** 31n;

/**
 * `Target.rowsWrittenBy`. Savepoints and exception blocks have numbers of their own: a row that was written within one
 * has that number, not the transaction's.
 */
export async function* rowsWrittenBy(
  session: Session,
  info: TableInfo,
  shape: TableShape,
  transaction: string,
): AsyncGenerator<RowKey, undefined> {
  const next = BigInt((await session.value("SELECT txid_snapshot_xmax(txid_current_snapshot())")) ?? "0");
  const xid = numberInRows(transaction, next);
  const columns = shape.key.flatMap((index) => info.columns[index] ?? []);
  const list = columns.map((c) => `t.${quote(c.name)}`).join(", ");
  const sql = `SELECT ${list} FROM ${info.from} AS t WHERE t.xmin = '${xid}'::xid`;
  for await (const cells of session.copy(sql)) yield toRow(columns, cells, 0);
}

/**
 * The number as rows have it. It may be given as rows have it (`SELECT xmin`) or whole (`pg_current_xact_id()`).
 * @param next the whole number that the next transaction will have.
 */
export function numberInRows(transaction: string, next: bigint): bigint {
  if (!/^[0-9]{1,19}$/.test(transaction))
    throw refused(`--transaction ${JSON.stringify(transaction)} is no number of a transaction`, EXPECTED);
  const given = BigInt(transaction);
  if (given < FIRST) throw refused(`${transaction} is no number of a transaction`, "numbers begin with 3");
  const sameRound = next - (next % ROUND) + given;
  const whole = given >= ROUND ? given : sameRound < next ? sameRound : sameRound - ROUND;
  if (whole < FIRST || whole >= next)
    throw refused(`there was no transaction ${transaction}`, `the next one has the number ${next}`);
  if (next - whole >= TOLD_APART)
    throw refused(
      `transaction ${transaction} is too long ago`,
      "rows keep 32 bits of the number, and a later transaction may have the same",
    );
  return whole % ROUND;
}

const EXPECTED = "expected a number as SELECT xmin or pg_current_xact_id() gives it";

function refused(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_USAGE", message, why });
}
