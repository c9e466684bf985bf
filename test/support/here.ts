/**
 * Commands run in this process, through `main` with streams of ours: what stands on the screen and how it ends, as the
 * binary would say it, without paying for its start. What a process is (signals, a real terminal, a pipe that closes)
 * is for the tests that start one.
 */
import { PassThrough } from "node:stream";
import { type Document, type Ran, saysItsEnd, type TestProject } from "./project.js";

/** The program as it is built: its own files stand where it looks for them. */
const BUILT = new URL("../../../dist/cli/main.js", import.meta.url).href;

/** What the streams are. */
export interface Surroundings {
  readonly env?: Readonly<Record<string, string>>;
  /** Terminals on all three, or on all but one; else pipes. */
  readonly terminal?: { readonly columns: number; readonly butNot?: "stdin" | "stdout" | "stderr" };
}

/** What a terminal's stream can do beside writing: where the cursor is, nobody looks here. */
const CURSOR = {
  cursorTo: () => true,
  clearLine: () => true,
  moveCursor: () => true,
  getColorDepth: () => 4,
};

/** Runs one command in the project's folder. */
export async function runHere(
  project: Pick<TestProject, "dir">,
  args: readonly string[],
  around: Surroundings = {},
): Promise<Ran> {
  const { terminal } = around;
  const facts = terminal === undefined ? {} : { isTTY: true, columns: terminal.columns, rows: 50, ...CURSOR };
  const factsOf = (end: "stdin" | "stdout" | "stderr"): object => (terminal?.butNot === end ? {} : facts);
  const stream = (
    name: "stdout" | "stderr",
  ): { readonly end: NodeJS.WriteStream; readonly text: () => string } => {
    const through = new PassThrough();
    let text = "";
    through.on("data", (chunk: Buffer) => void (text += chunk.toString()));
    return { end: Object.assign(through, factsOf(name)) as unknown as NodeJS.WriteStream, text: () => text };
  };
  const [stdout, stderr] = [stream("stdout"), stream("stderr")];
  const stdin = Object.assign(new PassThrough(), factsOf("stdin"));
  stdin.end();
  const { main } = (await import(BUILT)) as typeof import("../../src/cli/main.js");
  const before = process.cwd();
  process.chdir(project.dir);
  try {
    const status = await main(args, {
      stdin: stdin as unknown as NodeJS.ReadStream,
      stdout: stdout.end,
      stderr: stderr.end,
      env: {
        PATH: process.env["PATH"] ?? "",
        HOME: `${project.dir}/home`,
        TZ: "UTC",
        LANG: "C.UTF-8",
        ...around.env,
      },
      cwd: () => project.dir,
      exit: (code) => {
        throw new Error(`the command ended the process with ${code}`);
      },
      on: () => undefined,
    });
    return { status, stdout: stdout.text(), stderr: stderr.text() };
  } finally {
    process.chdir(before);
  }
}

/** {@link runHere} with `--json`: the one document. */
export async function jsonHere(
  project: Pick<TestProject, "dir">,
  args: readonly string[],
  around: Surroundings = {},
): Promise<Document> {
  const { stdout, stderr, status } = await runHere(project, [...args, "--json"], around);
  try {
    const document = JSON.parse(stdout) as Document;
    if (document.exit.code !== status) throw new Error(`exit ${status}, document says ${document.exit.code}`);
    if (!saysItsEnd(status, stderr, document.error?.code))
      throw new Error(`exit ${status} without its line on stderr`);
    return document;
  } catch (e) {
    throw new Error(`${args.join(" ")} gave no single document: ${stdout}\n${stderr}`, { cause: e });
  }
}
