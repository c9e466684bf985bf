/** What an approver goes through at a terminal: the card, the questions, the signature or the rejection. */
import { formatDuration } from "../base/clock.js";
import { RefusedError, UsageError } from "../base/errors.js";
import type { PlannedUndo } from "../approval/plan-statement.js";
import {
  approverOf,
  type ApproveOptions,
  refuseDenied,
  signApproval,
  refuseMissingReason,
} from "../operations/approve.js";
import { requireSeen, type Review, reviewOf, type Weighed } from "../operations/consent/review.js";
import { rejectionInWords } from "../operations/recall/rejections.js";
import { rejectPlan } from "../operations/reject.js";
import { tierOf } from "../operations/judging/tier.js";
import type { SigningKey, Toolbox } from "../operations/toolbox.js";
import {
  type Question,
  renderApprovalEnd,
  renderAuthor,
  renderReview,
  renderReviewer,
  renderSigning,
  reviewQuestion,
} from "../render/approve.js";
import { agreement } from "../render/envcheck.js";
import type { Context, Outcome } from "./command.js";
import { askReadBack } from "./read-back.js";
import { cardFacts, planCard, type PlanFactsView, writingOf } from "./views/plan.js";
import { oddViews } from "./views/odd.js";
import { patternViews, rowViews, showing } from "./views/rows.js";
import { type ApproveFlags, approvedOutcome } from "./approved.js";

/** Screen on stderr, questions, signature; only the token goes to stdout. */
export async function atTerminal(
  cx: Context,
  tools: Toolbox,
  weighed: Weighed,
  flags: ApproveFlags,
  options: ApproveOptions,
): Promise<Outcome> {
  refuseDenied(weighed.decision, weighed.plan.id);
  requireTerminal(cx, weighed.plan.id);
  const key = await tools.findKey(flags.key, "holdpoint-approval");
  const person = approverOf(tools, key, weighed.plan);
  refuseMissingReason(weighed, options);
  const reviewed = await reviewOf(tools, weighed);
  const started = tools.clock.now().getTime();
  const tier = tierOf(reviewed);
  showReviewer(cx, tools, reviewed, person, key);
  const guess = tier === 3 ? await askReadBack(cx, reviewed) : null;
  const facts = { ...factsOf(tools, reviewed), guess };
  showReview(cx, reviewed, facts);
  const shown = tools.clock.now().getTime();
  const maySign = (): boolean => tier < 3 || tools.clock.now().getTime() - shown >= LEAST_READING_MS;
  const decided = await decide(cx, facts, maySign);
  switch (decided) {
    case "leave":
      return left(reviewed.plan.id);
    case "reject":
      return rejectHere(cx, tools, reviewed, flags);
    case "sign":
      return signHere(cx, tools, { reviewed, facts, key, person, started }, flags, options);
  }
}

function requireTerminal(cx: Context, plan: string): void {
  if (cx.streams.isInteractive) return;
  throw new UsageError({
    code: "ERR_INPUT_NEEDED",
    message: "approving needs a person at a terminal, and there is none",
    why: cx.streams.stderrIsTty ? "CI is set or --no-input was given" : "no terminal",
    next: [
      { actor: "approver", argv: ["holdpoint", "approve", plan] },
      {
        actor: "approver",
        argv: ["holdpoint", "approve", plan, "--prepare", "FILE", "--as", "PERSON"],
        text: "for a key that lives elsewhere",
      },
    ],
  });
}

function factsOf(tools: Toolbox, reviewed: Review): PlanFactsView {
  const { plan, examined } = reviewed;
  const masked = tools.project.config.targets[plan.statement.target.name]?.mask ?? [];
  return {
    id: plan.id,
    digest: plan.digest,
    file: plan.path,
    statement: plan.statement,
    summary: reviewed.summary,
    shapes: plan.changes.tables,
    decision: reviewed.decision,
    verdict: examined?.verdict ?? null,
    identity: examined?.marker?.identity ?? null,
    odd: reviewed.odd,
    facts: reviewed.facts,
    undo: reviewed.undo ?? untried(reviewed),
    description: examined?.identification.description ?? null,
    how: showing(masked),
    next: [],
  };
}

/**
 * Only what this machine tried itself is believed of the way back. Where it cannot read the target, what the requester's
 * machine says is shown as that machine's word, which the card never calls OK.
 */
function untried({ moved, examined, plan }: Review): PlannedUndo {
  const told = plan.statement.rehearsal.undo;
  if (examined === null && told !== undefined) return told;
  const why =
    examined === null
      ? "the target cannot be read from here"
      : moved !== null && moved > 0
        ? `${moved} rows moved since the plan`
        : "this kind of target has no place to try it";
  return { rehearsed: "not", identical: 0, of: 0, why };
}

/** At the highest tier a signature is not the next reflex after the card; rejecting has no delay. */
const LEAST_READING_MS = 5_000;

function showReviewer(cx: Context, tools: Toolbox, { plan }: Review, person: string, key: SigningKey): void {
  const { streams } = cx;
  const groups = tools.project.people.find((p) => p.name === person)?.groups ?? [];
  const requester = plan.statement.requester.person ?? "an unknown person";
  streams.err(
    renderReviewer(
      { approver: person, groups, key: key.fingerprint, requester, plan: plan.id },
      streams.errPalette,
      streams.width,
    ),
  );
  streams.err("\n");
}

function showReview(cx: Context, reviewed: Review, facts: PlanFactsView): void {
  const { streams } = cx;
  const { plan } = reviewed;
  streams.err(
    renderReview(
      {
        banner: {
          verdict: reviewed.examined?.verdict.name ?? plan.statement.target.verdict,
          target: plan.statement.target.name,
          note: readNote(reviewed),
        },
        card: planCard(facts),
        odd: oddViews(reviewed.odd, facts.shapes, facts.how),
        patterns: patternViews(reviewed.summary, facts.how),
        sample: rowViews(reviewed.summary.sample, facts.shapes, facts.how),
        rows: reviewed.summary.rows,
        against: beforeThis(reviewed),
      },
      streams.errPalette,
      streams.width,
    ),
  );
}

/** What this machine itself read of the target before showing the plan. */
function readNote({ examined, moved, unseen }: Review): string {
  if (examined === null) return `not read here: ${unseen ?? "out of reach"}`;
  const drift = moved === 0 ? "re-read now, no drift" : `${moved} rows moved since`;
  return `${agreement(examined.verdict.evidence)}; ${drift}`;
}

/** What others have said already: to this plan, and to the same effect under another one. */
function beforeThis({ given, rejected }: Review): string | null {
  const words = [
    ...rejected.map((r) => `LOOK: ${rejectionInWords(r)}.`),
    ...(given.length === 0 ? [] : [`Approved already by ${given.join(", ")}.`]),
  ];
  return words.length === 0 ? null : words.join(" ");
}

async function decide(
  cx: Context,
  facts: PlanFactsView,
  maySign: () => boolean,
): Promise<"sign" | "reject" | "leave"> {
  const { streams } = cx;
  for (;;) {
    const word = await cx.prompter.ask({
      message: "Decide: sign, reject, leave.  More: author.  >",
      needs: "approving needs a person",
      flag: null,
    });
    const typed = word.trim();
    if (typed === "sign" && !maySign()) {
      streams.err(`  Read the card first: signing opens ${LEAST_READING_MS / 1000} s after it is shown.\n`);
      continue;
    }
    if (typed === "sign" || typed === "reject" || typed === "leave") return typed;
    if (typed === "author") {
      const { requester, reason, ticket } = facts.statement;
      streams.err(
        renderAuthor(
          { requester: requester.person ?? "an unknown person", reason, ticket },
          streams.errPalette,
          streams.width,
        ),
      );
    } else {
      streams.err("  Type one of these words: sign, reject, leave, author.\n");
    }
  }
}

interface Signing {
  readonly reviewed: Review;
  readonly facts: PlanFactsView;
  readonly key: SigningKey;
  readonly person: string;
  readonly started: number;
}

/** Two wrong answers end the review without a signature. */
const WRONG_ANSWERS_ALLOWED = 1;

async function signHere(
  cx: Context,
  tools: Toolbox,
  s: Signing,
  flags: ApproveFlags,
  options: ApproveOptions,
): Promise<Outcome> {
  const question = reviewQuestion(cardFacts(s.facts), planCard(s.facts));
  const wrongAnswers = await answerRight(cx, question);
  const target = s.facts.statement.target.name;
  const typed = await cx.prompter.ask({
    message: "Question  Type the name of the target this will run on. >",
    needs: "approving needs a person",
    flag: null,
  });
  if (typed !== target) throw wrongAnswer(s.reviewed.plan.id, "that is not the plan's target");
  showSigning(cx, tools, s, options);
  const reviewedSeconds = Math.max(1, Math.round((tools.clock.now().getTime() - s.started) / 1000));
  const approved = await signApproval(tools, s.reviewed, s.key, options, reviewedSeconds);
  return approvedOutcome(cx, approved, flags, { reviewedSeconds, wrongAnswers });
}

async function answerRight(cx: Context, question: Question): Promise<number> {
  for (let wrong = 0; ; wrong++) {
    const typed = await cx.prompter.ask({
      message: `Question  ${question.text} >`,
      needs: "approving needs a person",
      flag: null,
    });
    if (typed.trim().replaceAll(",", "") === question.answer) return wrong;
    if (wrong >= WRONG_ANSWERS_ALLOWED)
      throw wrongAnswer("", `the answer stands on the card, in the line ${question.slot}`);
    cx.streams.err(`  That is not what the card says. Look at the line ${question.slot} again.\n`);
  }
}

function wrongAnswer(plan: string, why: string): RefusedError {
  return new RefusedError({
    code: "ERR_INTERRUPTED",
    message: "the review ended without a signature",
    why,
    state: "Nothing was signed.",
    next: plan === "" ? [] : [{ actor: "approver", argv: ["holdpoint", "approve", plan] }],
  });
}

function showSigning(cx: Context, tools: Toolbox, s: Signing, options: ApproveOptions): void {
  const { streams } = cx;
  const ends = new Date(tools.clock.now().getTime() + options.expiresSeconds * 1000);
  const { statement } = s.facts;
  const view = {
    planDigest: s.reviewed.plan.digest,
    target: statement.target.name,
    environment: s.reviewed.guardedAs,
    requester: statement.requester.person ?? "an unknown person",
    expiresAt: `${ends.toISOString().slice(0, 19)}Z`,
    coverUndo: options.coverUndoSeconds === null ? null : formatDuration(options.coverUndoSeconds),
    ...writingOf(statement),
  };
  streams.err(`\n${renderSigning(view, streams.errPalette, streams.width)}`);
}

function left(plan: string): Outcome {
  return {
    result: { plan, person: null, token: null },
    text: "",
    error: new RefusedError({
      code: "ERR_INTERRUPTED",
      message: "left without a decision",
      why: `${plan} is as it was`,
      state: "Nothing was signed.",
      next: [{ actor: "approver", argv: ["holdpoint", "approve", plan] }],
    }),
  };
}

async function rejectHere(
  cx: Context,
  tools: Toolbox,
  reviewed: Review,
  flags: ApproveFlags,
): Promise<Outcome> {
  // A rejection is anchored in the target; where that cannot be read, it is said before a reason is typed.
  requireSeen(reviewed);
  const reason = await cx.prompter.ask({
    message: "Reason (the requester sees this): ",
    needs: "a rejection needs a reason",
    flag: null,
  });
  const rejected = await rejectPlan(tools, { ref: reviewed.plan.path, reason, key: flags.key });
  const end = { kind: "rejected" as const, plan: rejected.plan, by: rejected.by, reason: reason.trim() };
  cx.say(renderApprovalEnd({ end, next: [] }, cx.streams.errPalette, cx.streams.width));
  return { result: { plan: rejected.plan, person: rejected.by, token: null, rejected: true }, text: "" };
}
