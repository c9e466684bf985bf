/** `env pin TARGET --replace`: another place, environment or marker, which always takes two people. */
import { UsageError } from "../../base/errors.js";
import { writeIdentity } from "../../config/write-identity.js";
import { quorumWords } from "../../operations/consent/quorum.js";
import { acceptRepin, prepareRepin } from "../../operations/repin.js";
import { renderStatement } from "../../render/statement.js";
import type { Context, Outcome } from "../command.js";
import { readGiven, writeStatement } from "./trust-change.js";

/** The flags of `env pin` that belong to `--replace`. */
export interface RepinFlags {
  readonly replace?: boolean;
  readonly prepare?: string;
  readonly prepared?: string;
  readonly signature: readonly string[];
}

/** Prepares the statement that two people sign, or writes the pin that they signed. */
export async function repin(cx: Context, target: string, flags: RepinFlags): Promise<Outcome> {
  if (flags.prepare !== undefined && flags.prepared === undefined) return prepare(cx, target, flags.prepare);
  if (flags.prepared !== undefined && flags.prepare === undefined) {
    return accept(cx, target, flags.prepared, flags.signature);
  }
  throw new UsageError({
    code: "ERR_USAGE",
    message: "--replace needs --prepare FILE, or --prepared FILE with the signatures",
    why: "replacing a pin always takes two people, who sign what it changes",
  });
}

async function prepare(cx: Context, target: string, file: string): Promise<Outcome> {
  const made = await prepareRepin(await cx.tools(), target);
  await writeStatement(file, made.bytes);
  return {
    result: {
      target,
      pinned: false,
      environment: made.environment,
      changes: made.changes,
      quorum: made.quorum,
      file,
      expires_at: made.expiresAt,
    },
    text: cx.screen(renderStatement, {
      target,
      verdict: made.environment,
      what: "another pin, not written yet",
      changes: made.changes,
      quorum: `${quorumWords(made.quorum)} of the list that was pinned before`,
      signers: [],
      end: { kind: "prepared", file, expiresAt: made.expiresAt },
      next: [
        {
          actor: "approver",
          argv: ["ssh-keygen", "-Y", "sign", "-n", "holdpoint-pin", "-f", "KEY", file],
          text: "each keeps the .sig under a name of their own",
        },
        {
          actor: "dba",
          argv: [
            "holdpoint",
            "env",
            "pin",
            target,
            "--replace",
            "--prepared",
            file,
            "--signature",
            "SIG",
            "--signature",
            "SIG",
          ],
        },
      ],
    }),
  };
}

async function accept(
  cx: Context,
  target: string,
  file: string,
  signatures: readonly string[],
): Promise<Outcome> {
  const tools = await cx.tools();
  const done = await acceptRepin(tools, {
    name: target,
    bytes: await readGiven("--prepared", file),
    signatures: await Promise.all(signatures.map((f) => readGiven("--signature", f))),
    writeIdentity: (identity) => writeIdentity(tools.project.config.file, target, identity),
  });
  return {
    result: {
      target,
      pinned: true,
      identity: done.identity,
      environment: done.environment,
      changes: done.changes,
      signed_by: done.signedBy,
    },
    text: cx.screen(renderStatement, {
      target,
      verdict: done.environment,
      what: "pinned again",
      changes: done.changes,
      quorum: "",
      signers: [],
      end: { kind: "done", by: done.signedBy, now: `${done.identity}, ${done.environment}` },
      next: [{ actor: "anyone", argv: ["holdpoint", "env", "check", target] }],
    }),
    targetChanged: "yes",
  };
}
