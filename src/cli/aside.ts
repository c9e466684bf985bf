/**
 * Text that is shown aside: page by page on the terminal's other screen, which leaves nothing behind when it closes. No
 * pager: what a pager is given can be saved to a file with one key.
 */
import type { Context } from "./command.js";

/** Of xterm and all that follow it: over to the other screen, and back to what stood before. */
const OPEN = "\u001b[?1049h";
const CLOSE = "\u001b[?1049l";
const CLEAR = "\u001b[2J\u001b[H";

/** Lines that stay free for the question below the page. */
const SPARE_LINES = 3;

/**
 * Shows texts, and asks after each page whether to go on; ends when all was shown or somebody had enough. A terminal that
 * cannot redraw, or is read aloud, has the pages below each other.
 */
export async function leafThrough(
  { streams, prompter }: Pick<Context, "streams" | "prompter">,
  texts: Iterable<string>,
): Promise<void> {
  const redraws = !streams.plainPrompts;
  const room = Math.max(1, (streams.stdio.stdout.rows ?? 24) - SPARE_LINES);
  if (redraws) streams.out(OPEN);
  try {
    let page: string[] = [];
    const show = async (isLast: boolean): Promise<boolean> => {
      streams.out(`${redraws ? CLEAR : ""}${page.join("\n")}\n`);
      page = [];
      const typed = await prompter.ask({
        message: isLast ? "Enter closes this" : "Enter goes on, q closes this",
        needs: "masked values are shown to a person",
        flag: null,
      });
      return !isLast && typed.trim().toLowerCase() !== "q";
    };
    for (const line of linesOf(texts)) {
      if (page.length >= room && !(await show(false))) return;
      page.push(line);
    }
    await show(true);
  } finally {
    if (redraws) streams.out(CLOSE);
  }
}

function* linesOf(texts: Iterable<string>): Generator<string> {
  for (const text of texts) yield* text.replace(/\n$/, "").split("\n");
}
