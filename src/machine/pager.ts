/** A pager for long output at a terminal: a program of the reader's choice that is given the text on its standard input. */
import { spawn } from "node:child_process";
import { once } from "node:events";

/** A running pager. */
export interface Pager {
  /** Hands it text and waits until it takes more; false when it is gone, so that nothing more need be made. */
  readonly write: (text: string) => Promise<boolean>;
  /** Resolves when the reader has left it. */
  readonly end: () => Promise<void>;
}

/** Which pager the environment names; null when it says that there is to be none. */
export function pagerCommand(env: Readonly<Record<string, string | undefined>>): readonly string[] | null {
  const named = env["HOLDPOINT_PAGER"] ?? env["PAGER"];
  if (named === undefined) return ["less", "-FRX"];
  const words = named
    .trim()
    .split(/\s+/)
    .filter((w) => w !== "");
  return words.length === 0 || words[0] === "cat" ? null : words;
}

/**
 * Starts it; no shell reads the words. Null when there is no such program: the caller then prints as if none had been
 * asked for. A reader who leaves early ends nothing: what is still written goes nowhere, quietly.
 */
export function startPager(
  command: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<Pager | null> {
  const [program = "", ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ["pipe", "inherit", "inherit"], env: { ...env } });
    let open = true;
    const { promise: gone, resolve: leave } = leaving();
    child.once("error", () => {
      open = false;
      leave();
      resolve(null);
    });
    child.once("close", () => {
      open = false;
      leave();
    });
    child.stdin.on("error", () => {
      open = false;
    });
    child.once("spawn", () =>
      resolve({
        write: async (text) => {
          // Its reader may be on the first page for an hour: the rest waits outside of memory.
          if (open && !child.stdin.write(text))
            await Promise.race([once(child.stdin, "drain").catch(() => undefined), gone]);
          return open;
        },
        end: async () => {
          child.stdin.end();
          await gone;
        },
      }),
    );
  });
}

/** A promise and what resolves it. */
function leaving(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
