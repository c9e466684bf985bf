/** What an approver says before seeing a plan: only then is the answer a check of its own. */
import type { Review } from "../operations/consent/review.js";
import { GUESSES, renderReadBack } from "../render/approve.js";
import type { CardFacts } from "../render/card.js";
import type { Context } from "./command.js";

/** Asks for an order of magnitude of the largest table's rows; null for "I do not know". Wrong digits are asked again. */
export async function askReadBack(cx: Context, reviewed: Review): Promise<CardFacts["guess"]> {
  const largest = [...reviewed.summary.tables].sort((a, b) => rowsOf(b) - rowsOf(a))[0];
  if (largest === undefined) return null;
  const { streams } = cx;
  const view = { table: largest.name, ticket: reviewed.plan.statement.ticket };
  streams.err(renderReadBack(view, streams.errPalette, streams.width));
  for (;;) {
    const typed = await cx.prompter.ask({ message: ">", needs: "approving needs a person", flag: null });
    const guess = GUESSES.find((g) => g.digit === typed.trim());
    if (guess?.digit === "0") return null;
    if (guess !== undefined) return { table: largest.name, least: guess.least, most: guess.most };
    streams.err("  Type one of the digits: 0 to 6.\n");
  }
}

function rowsOf(t: { readonly insert: number; readonly update: number; readonly delete: number }): number {
  return t.insert + t.update + t.delete;
}
