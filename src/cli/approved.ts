/** What is said of an approval that was given, and where its token goes. */
import { writeFile } from "node:fs/promises";
import { codeOf, type NextStep, UsageError } from "../base/errors.js";
import { type Approved } from "../operations/approve.js";
import { renderApprovalEnd } from "../render/approve.js";
import type { Context, Outcome } from "./command.js";

/** How long a person looked, and how often an answer was wrong. */
export interface Reviewing {
  readonly reviewedSeconds: number | null;
  readonly wrongAnswers: number;
}

/** What `approve` takes beside the plan. */
export interface ApproveFlags {
  readonly key?: string;
  readonly expires?: string;
  readonly coverUndo?: string;
  readonly reason?: string;
  readonly out?: string;
  readonly prepare?: string;
  readonly as?: string;
  readonly prepared?: string;
  readonly signature?: string;
  readonly replan?: boolean;
  readonly review?: string;
}

/** Says on stderr what was signed; the token goes to stdout, or into the file of `--out`. */
export async function approvedOutcome(
  cx: Context,
  approved: Approved,
  flags: ApproveFlags,
  how: Reviewing,
): Promise<Outcome> {
  const toFile = flags.out !== undefined && flags.out !== "-";
  if (toFile) await writeNew(flags.out ?? "", Buffer.from(`${approved.token}\n`));
  cx.say(
    renderApprovalEnd(
      {
        end: {
          kind: "signed",
          plan: approved.plan,
          approver: approved.person,
          ...how,
          where: whereKept(toFile ? `in ${flags.out ?? ""}` : "on stdout", approved),
        },
        next: [applyNext(approved, toFile ? (flags.out ?? "") : null)],
      },
      cx.streams.errPalette,
      cx.streams.width,
    ),
  );
  const { statement } = approved;
  return {
    result: {
      plan: approved.plan,
      person: approved.person,
      token: approved.token,
      expires_at: statement.expiresAt,
      cover_undo: statement.coverUndo === "no" ? null : statement.coverUndo,
      reviewed: statement.reviewed,
      recorded: approved.recorded,
    },
    text: toFile ? "" : `${approved.token}\n`,
  };
}

function whereKept(where: string, { recorded }: Approved): string {
  return recorded
    ? `${where} and in the ledger`
    : `${where}, and nowhere else: this machine has no ledger of it`;
}

/** Where the ledger has the token, apply finds it; a token that only its text holds has to be handed over. */
function applyNext({ plan, statement, recorded }: Approved, file: string | null): NextStep {
  const apply = ["holdpoint", "apply", plan, "--confirm", statement.target];
  if (recorded) return { actor: "requester", argv: apply };
  const given = { actor: "requester" as const, argv: [...apply, "--approval", file ?? "FILE"] };
  return file === null ? { ...given, text: "FILE holds the token above" } : given;
}

/** A file that is there is never overwritten. */
export async function writeNew(file: string, bytes: Uint8Array): Promise<void> {
  try {
    await writeFile(file, bytes, { flag: "wx", mode: 0o600 });
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `${file} cannot be written`,
      why: codeOf(e) === "EEXIST" ? "it is there already, and is not overwritten" : (codeOf(e) ?? "unknown"),
      cause: e,
    });
  }
}
