/** `trust propose` and `trust accept`: the trust bundle changes by a quorum of the people it had before. */
import { readFile, writeFile } from "node:fs/promises";
import { codeOf, UsageError } from "../../base/errors.js";
import { quorumWords } from "../../operations/consent/quorum.js";
import { acceptTrust, proposeTrust } from "../../operations/trust-change.js";
import { renderStatement } from "../../render/statement.js";
import type { Context, Outcome } from "../command.js";

/** Shows what would change, and writes the file to sign. */
export async function propose(
  cx: Context,
  flags: { readonly on?: string; readonly out: string },
): Promise<Outcome> {
  const tools = await cx.tools();
  const proposal = await proposeTrust(tools, flags.on ?? null);
  await writeStatement(flags.out, proposal.bytes);
  const sign = ["ssh-keygen", "-Y", "sign", "-n", "holdpoint-trust", "-f", "KEY", flags.out];
  return {
    result: {
      target: proposal.target,
      from: proposal.from,
      to: proposal.to,
      changes: proposal.changes,
      quorum: proposal.quorum,
      signers: proposal.signers,
      file: flags.out,
      expires_at: proposal.expiresAt,
    },
    text: cx.screen(renderStatement, {
      target: proposal.target,
      verdict: verdictWord(proposal.environment),
      what: "a change of trust, proposed",
      changes: proposal.changes,
      quorum: `${quorumWords(proposal.quorum)} of the pinned list`,
      signers: proposal.signers,
      end: { kind: "prepared", file: flags.out, expiresAt: proposal.expiresAt },
      next: [
        { actor: "approver", argv: sign, text: "each keeps the .sig under a name of their own" },
        {
          actor: "anyone",
          argv: ["holdpoint", "trust", "accept", flags.out, "--signature", "SIG", "--signature", "SIG"],
        },
      ],
    }),
  };
}

/** Counts the signatures and pins the bundle that lies here. */
export async function accept(
  cx: Context,
  file: string,
  flags: { readonly signature: readonly string[] },
): Promise<Outcome> {
  const tools = await cx.tools();
  const signatures = await Promise.all(flags.signature.map((f) => readGiven("--signature", f)));
  const accepted = await acceptTrust(tools, await readGiven("the proposal", file), signatures);
  const environment = tools.project.config.targets[accepted.target]?.environment ?? "unproven";
  return {
    result: {
      target: accepted.target,
      from: accepted.from,
      to: accepted.to,
      changes: accepted.changes,
      signed_by: accepted.signedBy,
    },
    text: cx.screen(renderStatement, {
      target: accepted.target,
      verdict: verdictWord(environment),
      what: "a change of trust, accepted",
      changes: accepted.changes,
      quorum: "",
      signers: [],
      end: { kind: "done", by: accepted.signedBy, now: `pins ${accepted.to}` },
      next: [{ actor: "anyone", argv: ["holdpoint", "trust", "show", "--on", accepted.target] }],
    }),
    targetChanged: "yes",
    ...(accepted.systemPin
      ? { warnings: [`/etc/holdpoint/pins.yaml still pins the old bundle: root writes ${accepted.to} there`] }
      : {}),
  };
}

/** The banner's word. */
export function verdictWord(environment: string): "production" | "staging" | "development" | "unproven" {
  return environment === "production" || environment === "staging" || environment === "development"
    ? environment
    : "unproven";
}

/** A file that is there is never overwritten. */
export async function writeStatement(file: string, bytes: Uint8Array): Promise<void> {
  try {
    await writeFile(file, bytes, { flag: "wx", mode: 0o644 });
  } catch (e) {
    const why =
      codeOf(e) === "EEXIST" ? "it is there already, and is not overwritten" : (codeOf(e) ?? "unknown");
    throw new UsageError({ code: "ERR_USAGE", message: `${file} cannot be written`, why, cause: e });
  }
}

/** A file that the command line names. */
export async function readGiven(what: string, file: string): Promise<Uint8Array> {
  try {
    return await readFile(file);
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${what} ${file} cannot be read`,
      why: codeOf(e) ?? "it is no file",
      cause: e,
    });
  }
}
