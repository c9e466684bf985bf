/** Standard input as text, bounded: a token or a short file, never a stream of rows. */
import { UsageError } from "../base/errors.js";

const LIMIT_BYTES = 1024 * 1024;

/** Reads all of it. @throws UsageError beyond 1 MiB. */
export async function readStdin(stdin: AsyncIterable<unknown>): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    const bytes =
      typeof chunk === "string" ? Buffer.from(chunk) : Buffer.isBuffer(chunk) ? chunk : Buffer.alloc(0);
    size += bytes.length;
    if (size > LIMIT_BYTES)
      throw new UsageError({ code: "ERR_USAGE", message: "standard input is longer than 1 MiB" });
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}
