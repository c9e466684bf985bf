/** This side of a module that asks: reads questions from the child, one after the other, and writes their answers. */
import type { Readable, Writable } from "node:stream";
import { messageOf } from "../base/errors.js";
import {
  type AnswerJob,
  decodeQuestion,
  encodeAnswer,
  LENGTH_BYTES,
  MOST_MESSAGE_BYTES,
} from "../target/job-questions.js";

/**
 * Answers until the child asks no more.
 * @throws Error when the child sends what is no question; whoever runs it ends it then.
 */
export async function answerAll(questions: Readable, answers: Writable, answer: AnswerJob): Promise<void> {
  // A child that ended does not read its answer any more: that it ended is told elsewhere.
  answers.on("error", () => undefined);
  try {
    for await (const message of messages(questions))
      answers.write(encodeAnswer(await answer(decodeQuestion(message))));
  } catch (e) {
    answers.write(encodeAnswer({ ok: false, message: messageOf(e) }));
    throw e;
  } finally {
    answers.end();
  }
}

async function* messages(stream: Readable): AsyncGenerator<Buffer, undefined> {
  let held: Buffer = Buffer.alloc(0);
  for await (const chunk of stream) {
    if (!Buffer.isBuffer(chunk)) throw new Error("questions are bytes");
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    for (let length = lengthOf(held); length !== null; length = lengthOf(held)) {
      yield held.subarray(LENGTH_BYTES, length);
      held = held.subarray(length);
    }
  }
}

/** Of the first message with its length, when all of it is there. */
function lengthOf(held: Buffer): number | null {
  if (held.length < LENGTH_BYTES) return null;
  const length = held.readUInt32LE();
  if (length > MOST_MESSAGE_BYTES) throw new Error("a question is too large");
  return held.length >= LENGTH_BYTES + length ? LENGTH_BYTES + length : null;
}
