/**
 * Tables that only ever grow: an audit trail, an outbox. Taking a run back never deletes or edits a row there. What a
 * reversing row would have to say is the table's own business, and nobody has told us, so such an undo is refused by
 * name; the other tables can be taken back without it.
 */
import { RefusedError } from "../../base/errors.js";
import type { TableCounts } from "../../changeset/change.js";
import { targetConfigOf } from "../../config/config.js";
import { countsInWords } from "../judging/scope.js";
import type { Toolbox } from "../toolbox.js";

/** @throws RefusedError ERR_APPEND_ONLY (30) when an undo or rescue would delete or edit rows of such a table. */
export function refuseAppendOnly(
  tools: Toolbox,
  target: string,
  kind: "undo" | "rescue",
  tables: readonly TableCounts[],
): void {
  const appendOnly = new Set(targetConfigOf(tools.project.config, target).appendOnly);
  const hit = tables.filter((t) => appendOnly.has(t.name) && t.delete + t.update > 0);
  if (hit.length === 0) return;
  const others = tables.filter((t) => !appendOnly.has(t.name));
  throw new RefusedError({
    code: "ERR_APPEND_ONLY",
    message: `the ${kind} would remove or edit rows of ${hit.map((t) => t.name).join(", ")}, which only ever grow`,
    why: `${hit.map(countsInWords).join("; ")}; append_only in holdpoint.yaml names ${[...appendOnly].join(", ")}`,
    next: [
      ...(others.length === 0
        ? []
        : [
            {
              actor: "requester" as const,
              text: `Take back the other tables alone: ${others.map((t) => `--table ${t.name}`).join(" ")}`,
            },
          ]),
      { actor: "requester", text: "Write the reversing rows with a job of their own." },
    ],
    details: hit.map((t) => ({ table: t.name, update: t.update, delete: t.delete })),
  });
}
