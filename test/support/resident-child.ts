/** The process behind `resident.ts`: runs what it is told, one command after the other, until nobody is left who could tell. */
import { openSync, unlinkSync } from "node:fs";
import { PassThrough } from "node:stream";
import { type ResidentCommand, type ResidentEnd, readMessage, writeMessage } from "./resident.js";

const START = new URL("../../../dist/bundle/start.js", import.meta.url).href;

const [requestsPath = "", answersPath = ""] = process.argv.slice(2);
const requests = openSync(requestsPath, "r");
const answers = openSync(answersPath, "w");
const { start } = (await import(START)) as typeof import("../../src/cli/start.js");

for (;;) {
  const told = readMessage(requests);
  if (told === null) break;
  writeMessage(answers, JSON.stringify(await run(JSON.parse(told) as ResidentCommand)));
}
for (const pipe of [requestsPath, answersPath]) unlinkSync(pipe);

/** All that a process is given: folder, variables, arguments, standard input. */
async function run({ cwd, args, env, input }: ResidentCommand): Promise<ResidentEnd> {
  const [stdout, stderr] = [collected(), collected()];
  const stdin = new PassThrough();
  stdin.end(input);
  process.chdir(cwd);
  for (const name of Object.keys(process.env)) if (env[name] === undefined) delete process.env[name];
  Object.assign(process.env, env);
  const status = await start(args, {
    stdin: stdin as unknown as NodeJS.ReadStream,
    stdout: stdout.end,
    stderr: stderr.end,
    env,
    cwd: () => cwd,
    exit: (code) => {
      throw new Error(`the command ended the process with ${code}`);
    },
    on: () => undefined,
  });
  process.chdir("/");
  return { status, stdout: stdout.text(), stderr: stderr.text() };
}

function collected(): { readonly end: NodeJS.WriteStream; readonly text: () => string } {
  const through = new PassThrough();
  const chunks: Buffer[] = [];
  through.on("data", (chunk: Buffer) => void chunks.push(chunk));
  return { end: through as unknown as NodeJS.WriteStream, text: () => Buffer.concat(chunks).toString() };
}
