/**
 * The connection of a module whose statements run in another process: each goes out on one pipe, and the child waits on
 * another until the answer is there. The child knows nothing else of the database.
 */
import { readSync, writeSync } from "node:fs";
import { codeOf } from "../base/errors.js";
import type { JobConnection, JobConnector, JobRow, JobValues } from "../target/job-connection.js";
import {
  decodeAnswer,
  encodeQuestion,
  LENGTH_BYTES,
  MOST_MESSAGE_BYTES,
  type JobAnswer,
} from "../target/job-questions.js";

/** The descriptors that `child.ts` gives: questions go out on the first, answers come on the second. */
export const QUESTIONS = 3;
/** See {@link QUESTIONS}. */
export const ANSWERS = 4;
/** How long is waited before a pipe is tried again that was not ready. */
const PAUSE_MS = 1;

/** There is nothing to open, begin or commit: the other side does, and never because a job says so. */
export const openJobConnection: JobConnector = async () => CONNECTION;

const CONNECTION: JobConnection = {
  all: (sql, values) => ask(sql, values).rows,
  iterate: (sql, values) => ask(sql, values).rows,
  run: (sql, values) => ({ changes: ask(sql, values).changes }),
  begin: () => undefined,
  commit: () => undefined,
  close: () => undefined,
};

function ask(sql: string, values: JobValues): { readonly rows: readonly JobRow[]; readonly changes: number } {
  send(encodeQuestion({ sql, values }));
  const answer = receive();
  if (!answer.ok) throw new Error(answer.message);
  return answer;
}

function send(bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) {
    at += retried(() => writeSync(QUESTIONS, bytes, at));
  }
}

function receive(): JobAnswer {
  const length = exactly(LENGTH_BYTES).readUInt32LE();
  if (length > MOST_MESSAGE_BYTES) throw new Error("the answer is too large");
  return decodeAnswer(exactly(length));
}

function exactly(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const read = retried(() => readSync(ANSWERS, bytes, at, length - at, null));
    if (read === 0) throw new Error("nobody answers any more");
    at += read;
  }
  return bytes;
}

/** A pipe that is not ready says so instead of waiting. */
function retried(act: () => number): number {
  for (;;) {
    try {
      return act();
    } catch (e) {
      if (codeOf(e) !== "EAGAIN") throw e;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
    }
  }
}
