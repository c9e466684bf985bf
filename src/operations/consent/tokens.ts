/** Tokens as somebody hands them in: from a file, from standard input, from the environment. */
import type { ApprovalStatement, Token } from "../../approval/approval-statement.js";
import { parseSshsig, verifySshsig } from "../../approval/sshsig.js";
import { parseToken, splitTokens } from "../../approval/token.js";
import { IntegrityError } from "../../base/errors.js";
import type { NewEntry } from "../../ledger/entry.js";

/**
 * The tokens in a text that somebody handed in. Tokens found in the ledger may be worthless and are passed over;
 * one that is handed in and whose bytes are not what was signed is a sign of tampering or of a bad copy, so it
 * refuses (35) even beside good ones. Whose key it is, and for what, is a matter of counting.
 */
export function takeIn(text: string): readonly Token[] {
  const tokens = splitTokens(text).map(parseToken);
  if (tokens.length === 0) throw altered("there is no token in what was given as an approval");
  for (const token of tokens) {
    // Its own namespace: a good signature for another purpose is refused by the count, not as altered.
    const { namespace } = parseSshsig(token.signature);
    const check = verifySshsig({ bytes: token.bytes, signature: token.signature, namespace });
    if (!check.ok) throw altered(check.why);
  }
  return tokens;
}

/** What the ledger keeps of an approval, wherever it was made: the token itself, so that a covered undo finds it. */
export function approvedEntry(statement: ApprovalStatement, token: string): NewEntry {
  return {
    kind: "approved",
    target: statement.target,
    plan: statement.plan,
    facts: {
      digest: statement.planDigest,
      by: statement.approver,
      act: statement.act,
      expires_at: statement.expiresAt,
      cover_undo: statement.coverUndo,
      reviewed: statement.reviewed,
      token,
    },
  };
}

function altered(why: string): IntegrityError {
  return new IntegrityError({
    code: "ERR_APPROVAL_ALTERED",
    message: "an approval that was given is not what was signed",
    why,
    state: "Nothing was written. The approval itself is unused.",
    next: [{ actor: "requester", text: "Copy the token again from the approver; do not edit it." }],
  });
}
