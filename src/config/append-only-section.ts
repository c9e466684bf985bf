/** `append_only`: tables that only ever grow, and what the row holds that reverses one of theirs. */
import * as z from "zod";
import { tableName } from "./jobs-section.js";
import { plainText } from "./yaml-file.js";

/** What a cell of a reversing row holds. */
export type ReverseCell =
  | { readonly kind: "is"; readonly value: string | bigint | null }
  /** What another column of the row holds that is reversed. */
  | { readonly kind: "column"; readonly name: string }
  /** A number with the opposite sign. */
  | { readonly kind: "negate"; readonly name: string }
  /** One more than the largest whole number that the column ever held. */
  | { readonly kind: "next" };

/** A reversing row, by column; columns that are not named are copied. */
export type Reversal = Readonly<Record<string, ReverseCell>>;

const reverseCell = z.union([
  z.string(),
  z.int(),
  z.null(),
  z.strictObject({ column: plainText() }),
  z.strictObject({ negate: plainText() }),
  z.strictObject({ next: z.literal(true) }),
]);

/** `append_only` as it is written: names of tables, or each with the row that reverses one of its rows. */
export const growingTables = z.union([
  z.array(tableName()).min(1),
  z.record(
    tableName(),
    z.strictObject({
      reverse: z
        .record(plainText(), reverseCell)
        .refine((cells) => Object.keys(cells).length > 0, { error: "names no column" })
        .optional(),
    }),
  ),
]);

/** `append_only` as it is used. */
export function growing(raw: z.infer<typeof growingTables>): {
  readonly appendOnly: readonly string[];
  readonly reversals: Readonly<Record<string, Reversal>>;
} {
  if (Array.isArray(raw)) return { appendOnly: raw, reversals: {} };
  const declared = Object.entries(raw).flatMap(([table, { reverse }]) =>
    reverse === undefined ? [] : [[table, reversalOf(reverse)] as const],
  );
  return { appendOnly: Object.keys(raw), reversals: Object.fromEntries(declared) };
}

function reversalOf(cells: Readonly<Record<string, z.infer<typeof reverseCell>>>): Reversal {
  return Object.fromEntries(
    Object.entries(cells).map(([column, cell]): [string, ReverseCell] => {
      if (cell === null || typeof cell === "string") return [column, { kind: "is", value: cell }];
      if (typeof cell === "number") return [column, { kind: "is", value: BigInt(cell) }];
      if ("next" in cell) return [column, { kind: "next" }];
      return [
        column,
        "column" in cell ? { kind: "column", name: cell.column } : { kind: "negate", name: cell.negate },
      ];
    }),
  );
}
