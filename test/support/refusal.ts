/** Catches what a call refuses with, so that a test can look at code, message and reason. */
import { HoldpointError } from "../../src/base/errors.js";

/** The error that `call` throws or rejects with; a failure of the test when there is none. */
export async function refusal(call: () => unknown): Promise<HoldpointError> {
  try {
    await call();
  } catch (e) {
    if (e instanceof HoldpointError) return e;
    throw e;
  }
  throw new Error("nothing was refused");
}

/** `CODE message | why`, for one-line comparisons. */
export async function refusalLine(call: () => unknown): Promise<string> {
  const e = await refusal(call);
  return `${e.code} ${e.message}${e.why === undefined ? "" : ` | ${e.why}`}`;
}
