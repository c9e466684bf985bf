/** Prompts at a real pseudo-terminal: real keys, typed-ahead input, Ctrl-C; and a reader of stdout who goes away. */
import { spawn as spawnChild } from "node:child_process";
import { spawn } from "@lydell/node-pty";
import { describe, expect, test } from "@jest/globals";

const src = (file: string): string => JSON.stringify(new URL(`../../src/cli/${file}`, import.meta.url).href);

/** Waits for SIGUSR1, asks, prints the answer or the error's code. */
const ASKING = `
  import { openStreams } from ${src("streams.js")};
  import { createPrompter } from ${src("prompts.js")};
  const streams = openStreams(process.argv.slice(1), process.env, process);
  const keepAlive = setInterval(() => {}, 1000);
  process.once("SIGUSR1", async () => {
    const question = { message: "Type the name of the target:", needs: "x", flag: null };
    try {
      streams.out("ANSWER " + JSON.stringify(await createPrompter(streams).ask(question)) + "\\n");
    } catch (e) {
      streams.out("FAILED " + e.code + "\\n");
    }
    clearInterval(keepAlive);
  });
  process.stderr.write("READY\\n");
`;

interface Conversation {
  readonly flags?: readonly string[];
  /** Typed before the question is there. */
  readonly early?: string;
  readonly answer: string;
}

/** Everything on the screen when the process has ended. */
function converse({
  flags = [],
  early = "",
  answer,
}: Conversation): Promise<{ readonly screen: string; readonly code: number }> {
  const { CI: _, ...env } = process.env;
  const pty = spawn(process.execPath, ["--input-type=module", "-e", ASKING, "--", ...flags], {
    cols: 100,
    rows: 30,
    env: { ...env, TERM: "xterm", NO_COLOR: "1" },
  });
  let screen = "";
  let step: "starting" | "asked" | "answered" = "starting";
  pty.onData((data) => {
    screen += data;
    if (step === "starting" && screen.includes("READY")) {
      step = "asked";
      pty.write(early);
      pty.kill("SIGUSR1");
    } else if (step === "asked" && screen.includes("target:")) {
      step = "answered";
      pty.write(answer);
    }
  });
  return new Promise((resolve) => pty.onExit(({ exitCode }) => resolve({ screen, code: exitCode })));
}

describe.each([
  ["redrawing", []],
  ["accessible", ["--accessible"]],
])("a typed answer, %s", (_how, flags) => {
  test("is what was typed, blanks and all", async () => {
    const { screen, code } = await converse({ flags, answer: "shop-prod \r" });
    expect(screen).toContain(`ANSWER "shop-prod "`);
    expect(code).toBe(0);
  });

  test("does not begin with what was typed before the question", async () => {
    const { screen } = await converse({ flags, early: "yes\rshop-", answer: "prod\r" });
    expect(screen).toContain(`ANSWER "prod"`);
  });

  test("Ctrl-C ends it", async () => {
    const { screen } = await converse({ flags, answer: "shop\u0003" });
    expect(screen).toContain("FAILED ERR_INTERRUPTED");
  });
});

test("a reader who goes away ends a read quietly", async () => {
  const script = `
    import { openStreams } from ${src("streams.js")};
    const streams = openStreams([], {}, process);
    const write = () => {
      if (streams.outClosed()) return;
      streams.out("line\\n".repeat(1000));
      setImmediate(write);
    };
    write();
  `;
  const child = spawnChild(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (data: Buffer) => void (stderr += data.toString()));
  child.stdout.once("data", () => child.stdout.destroy());
  const code = await new Promise((resolve) => child.once("close", resolve));
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
});
