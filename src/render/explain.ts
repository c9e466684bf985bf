/** `holdpoint explain CODE`: what each error means and what to do about it. Wording may change, codes do not. */
import type { ErrorCode } from "../base/errors.js";
import { labelled } from "./error.js";
import { hang, page, paperOf } from "./layout.js";
import type { Palette } from "./palette.js";

/** One code's page. */
export interface Explanation {
  readonly means: string;
  readonly todo: string;
}

/** Total over the codes by type: a new code does not compile before it is explained. */
export const EXPLANATIONS: Readonly<Record<ErrorCode, Explanation>> = {
  ERR_INTERNAL: {
    means:
      "holdpoint met a state that its own rules exclude. It stopped rather than guess; State says whether anything was written.",
    todo: "Run the command again with --verbose and report what it prints. If rows were written, holdpoint status names the run.",
  },
  ERR_MACHINE_FAILED: {
    means:
      "The machine refused what the command needs, outside of the store: no room, no permission, a read-only file system, too many open files, or a disk that fails. Why has the system's own words.",
    todo: "Mend what Why names, then run the same command again. It ends as if nothing had been.",
  },
  ERR_STORE_FAILED: {
    means:
      "The store (.holdpoint/ unless configured) could not be read or written: disk full or failing, permissions, or a damaged file.",
    todo: "Mend what the cause names, then run the same command again. Do not delete the store: it holds the ledger and the snapshots.",
  },
  ERR_USAGE: {
    means:
      "The command line is not one that holdpoint knows: a flag, its value or the argument is missing or misspelt.",
    todo: "Read the examples of holdpoint COMMAND --help. holdpoint never runs a corrected guess.",
  },
  ERR_CONFIG_MISSING: {
    means: "No holdpoint.yaml was found from the working directory upwards.",
    todo: "Change into the project, or make a first one with holdpoint init.",
  },
  ERR_CONFIG_INVALID: {
    means:
      "holdpoint.yaml does not say what it has to say; Why names line and column. Unknown keys are errors, so that a misspelt guard is not a missing one.",
    todo: "Mend the named line.",
  },
  ERR_CONFIG_VARIABLE: {
    means: "A ${VARIABLE} in a target's url is not set or is empty. Empty never means a default.",
    todo: "Set the variable for this command.",
  },
  ERR_CONFIG_EXISTS: {
    means: "init found a file that it would have to overwrite, and it never overwrites.",
    todo: "Move the file away, or edit it by hand.",
  },
  ERR_PEOPLE_INVALID: {
    means:
      "people/allowed_signers or groups.yaml is not unambiguous: a pattern, several names on a line, a key under two people, a line without namespaces, or a group of nobody.",
    todo: "Mend the named line; one person and one key a line, namespaces named.",
  },
  ERR_POLICY_INVALID: {
    means:
      "A policy file cannot be read or a condition does not type-check. A policy that cannot be read closes the gate.",
    todo: "Mend the named line; holdpoint policy lint and policy test check it without a target.",
  },
  ERR_POLICY_TESTS: {
    means: "A test that a policy carries expects another decision than the policy makes.",
    todo: "Read the lines with - (expected) and + (found); then mend the rule, or the test.",
  },
  ERR_POLICY_LINT: {
    means:
      "policy lint found a rule that can never be met, asks for a group of nobody, or a window that never opens.",
    todo: "Mend each line marked error; warnings are for you to judge.",
  },
  ERR_SETUP_UNSAFE: {
    means:
      "doctor found something that would stop work, or that lets production be written to without holdpoint.",
    todo: "Each finding marked STOP says what to do. doctor itself changes nothing.",
  },
  ERR_TARGET_UNKNOWN: {
    means: "--on names a target that holdpoint.yaml does not have. There is no default target.",
    todo: "holdpoint env list shows the names.",
  },
  ERR_TARGET_UNSUPPORTED: {
    means:
      "The target or the job needs something that this kind of target cannot do exactly and reversibly, so it is refused by name.",
    todo: "Why names it; docs/fine-print.md says what each kind of target cannot hold.",
  },
  ERR_TARGET_PRIVILEGE: {
    means: "The role that holdpoint connects as lacks a privilege on the server that this command needs.",
    todo: "`holdpoint doctor --on TARGET` names each missing GRANT for its role; docs/postgres.md lists them by command.",
  },
  ERR_TARGET_VALUE: {
    means:
      "A value in the target has no exact form here, so a plan over it could not be written back byte for byte.",
    todo: "Leave the named column or row out of the job, or correct the value first.",
  },
  ERR_JOB_UNKNOWN: {
    means: "The job is neither a name in holdpoint.yaml nor a file.",
    todo: "Check the spelling; file names end in .sql, .js or .ts.",
  },
  ERR_JOB_INVALID: {
    means:
      "The job's file or its declaration cannot be used: it cannot be read, is empty, or declares what does not fit together.",
    todo: "Mend what Why names.",
  },
  ERR_JOB_PARAMETER: {
    means:
      "A parameter is missing, unknown, blank or outside what the job declares. A blank value never means all rows.",
    todo: "Give it with --set name=value.",
  },
  ERR_JOB_STATEMENT: {
    means:
      "The job contains a statement that cannot be rehearsed and taken back: transaction control, attaching files, settings, or the like.",
    todo: "Take the statement at the named line out of the job.",
  },
  ERR_JOB_FAILED: {
    means: "The job itself failed while it was rehearsed. Nothing of it was kept.",
    todo: "Mend the job; its own words are under --verbose.",
  },
  ERR_PLAN_UNKNOWN: {
    means: "No plan has that id or prefix in this store, and there is no file of that name.",
    todo: "holdpoint status lists the plans. A plan made on another machine travels as its .hpplan file.",
  },
  ERR_PLAN_AMBIGUOUS: {
    means: "Several plans begin with that prefix.",
    todo: "Type more of the id.",
  },
  ERR_RUN_UNKNOWN: {
    means: "No run has that id or prefix in this ledger.",
    todo: "holdpoint log lists the runs.",
  },
  ERR_RUN_AMBIGUOUS: {
    means: "Several runs begin with that prefix.",
    todo: "Type more of the id.",
  },
  ERR_UNDO_NOTHING: {
    means: "The run wrote nothing that could be put back, or was undone already.",
    todo: "holdpoint log show RUN says what it did.",
  },
  ERR_WAVES_SPLIT: {
    means:
      "A wave would write some rows of a group that hangs together (a foreign key, a swapped unique value, a changed key) and leave the others for later.",
    todo: "Ask for larger waves, or for none: then the plan is one transaction.",
  },
  ERR_RESOLUTIONS_INVALID: {
    means:
      "The resolutions file does not decide the conflicts that there are: a row is not decided, was changed since, cannot go as decided, or the file is about another undo or rescue.",
    todo: "Run the command again without it to have a fresh file written, and decide each line.",
  },
  ERR_STORE_UNSAFE: {
    means:
      "The store could be read or lost by others: wrong permissions, not ignored by git, or inside the target that it is to outlive.",
    todo: "Do what Why names: chmod 700, a line in .gitignore, or another place for store: in holdpoint.yaml.",
  },
  ERR_STORE_MISSING: {
    means: "Something that the store should hold is not there.",
    todo: "Run the command where the plan was made, or bring its file here. holdpoint log verify checks the ledger.",
  },
  ERR_SNAPSHOT_UNKNOWN: {
    means: "No snapshot has that id or prefix in this store.",
    todo: "holdpoint snapshot list shows them.",
  },
  ERR_APPROVAL_NEEDED: {
    means:
      "Policy asks for other people, and not enough of them have signed this plan. This is waiting, not failing.",
    todo: "Another person runs holdpoint approve PLAN; then the same apply again.",
  },
  ERR_INPUT_NEEDED: {
    means:
      "The command needs an answer, and nobody is there to give it: no terminal, CI, --no-input or --json.",
    todo: "Give the answer with the flag that Next names. approve is for a person at a terminal.",
  },
  ERR_POLICY_DENIED: {
    means: "A rule says no to this plan, or no rule allows it. No approval changes that.",
    todo: "holdpoint policy explain PLAN names the rule, what it saw and what would flip it.",
  },
  ERR_POLICY_EVALUATION: {
    means: "A rule's condition failed while it was evaluated. A rule that cannot answer counts as no.",
    todo: "Mend the rule at the named line.",
  },
  ERR_SCOPE_EXCEEDED: {
    means: "The job touched a table that its scope does not name.",
    todo: "Look at what it did there; then mend the job, or widen its scope where that is meant.",
  },
  ERR_EXPECT_MISSED: {
    means: "The number of rows is outside what the job declares with expect.",
    todo: "Find out why before changing the range: a missing condition looks like this.",
  },
  ERR_APPEND_ONLY: {
    means: "An undo or rescue would delete or edit rows of a table that holdpoint.yaml calls append_only.",
    todo: "Take back the other tables with --table, and write the reversing rows with a job of their own.",
  },
  ERR_MARKER_TOUCHED: {
    means:
      "The job would change holdpoint's own tables (holdpoint_*), which say who the target is and what was spent.",
    todo: "Leave these tables out of the job.",
  },
  ERR_TRUST_BUNDLE: {
    means:
      "People, policies or guarding configuration here are not what the target has pinned. Either they were changed, or this is another project.",
    todo: "holdpoint trust show compares. A wanted change is signed by a quorum of the old people: holdpoint trust propose.",
  },
  ERR_TRUST_QUORUM: {
    means:
      "Too few people who count signed: for a plan whose rule names a group of nobody, or for a change of trust or pin, which takes people of the bundle that is pinned now.",
    todo: "Why says who signed and what does not count. Another person of the pinned list signs the same file.",
  },
  ERR_DEBT_OPEN: {
    means:
      "A run under break-glass was not reviewed within a day. Until another person has looked at it, no job is planned or applied there; an undo still is.",
    todo: "Somebody else than the one who broke the glass runs holdpoint approve --review RUN.",
  },
  ERR_APPROVAL_MALFORMED: {
    means:
      "The approval is not a token in its one valid form: cut off, wrapped by a mail program, or altered.",
    todo: "Copy the token again, or travel it as a file: --approval FILE.",
  },
  ERR_APPROVAL_SIGNATURE: {
    means:
      "The approval's signature does not fit its statement: its bytes are not the ones that were signed.",
    todo: "Do not retry with the same token. Ask the approver for the original and find out where it was changed.",
  },
  ERR_APPROVAL_UNKNOWN_KEY: {
    means: "The approval was signed with a key that the pinned people file does not know.",
    todo: "The approver signs with a key listed there; holdpoint key check helps.",
  },
  ERR_APPROVAL_NAMESPACE: {
    means:
      "The key or the signature is for another purpose: an SSH signature made for one thing is worth nothing for another.",
    todo: "Sign with namespace holdpoint-approval, and list it for the key.",
  },
  ERR_APPROVAL_KEY_EXPIRED: {
    means: "The approver's key was not valid at the time of signing.",
    todo: "Another approver, or a renewed line in the people file.",
  },
  ERR_APPROVAL_PERSON: {
    means: "The approval names another person than the one whose key signed it.",
    todo: "The person signs under their own name.",
  },
  ERR_APPROVAL_SELF: {
    means: "Requester and approver are the same person. That holds for every key of that person.",
    todo: "Someone else approves.",
  },
  ERR_APPROVAL_EXPIRED: {
    means: "The approval's time is over. It was given for the state of its day.",
    todo: "Approve again, or make a new plan if the rows may have moved.",
  },
  ERR_APPROVAL_NOT_YET: {
    means: "The approval was issued in the future of this machine's clock.",
    todo: "Check the clocks of both machines.",
  },
  ERR_APPROVAL_SPENT: {
    means: "The approval was used already. One approval opens one plan, once.",
    todo: "Make a new plan and have it approved.",
  },
  ERR_APPROVAL_REJECTED: {
    means: "The plan was rejected. It can no longer be approved by anyone.",
    todo: "Read the reason with holdpoint log, mend the job, and make a new plan.",
  },
  ERR_APPROVAL_REVOKED: {
    means: "The approval was taken back after it was given.",
    todo: "Talk to the approver.",
  },
  ERR_APPROVAL_OTHER_PLAN: {
    means: "The approval is for another plan. It names the digest of the plan it opens.",
    todo: "Use the token that was given for this plan.",
  },
  ERR_APPROVAL_OTHER_TARGET: {
    means: "The approval names another target, identity or environment than this plan has now.",
    todo: "holdpoint env check says where you are.",
  },
  ERR_APPROVAL_ALTERED: {
    means: "The approval describes another effect than the plan has: counts or digest differ from its rows.",
    todo: "Do not retry. Keep both files and find out who changed which.",
  },
  ERR_APPROVAL_NOT_VERIFIED: {
    means:
      "Policy asks that the hardware key knew its owner, by PIN or finger, and this signature was made without.",
    todo: "The approver signs with a key that asks for it (ssh-keygen -t ed25519-sk -O verify-required).",
  },
  ERR_APPROVAL_NO_TOUCH: {
    means: "Policy asks for a key that a person touches, and this signature does not prove a touch.",
    todo: "Approve with a hardware key (sk-ssh-ed25519).",
  },
  ERR_APPROVAL_NOT_REVIEWED: {
    means: "Policy asks for a review in the tool, and this signature was made outside.",
    todo: "Approve at a terminal with holdpoint approve PLAN.",
  },
  ERR_APPROVAL_NO_REASON: {
    means: "Policy asks the approver for a reason, and the approval gives none.",
    todo: "Approve again with --reason TEXT.",
  },
  ERR_APPROVAL_GROUP: {
    means: "Enough people signed, but not of the groups that policy asks for.",
    todo: "holdpoint policy explain PLAN names the groups.",
  },
  ERR_APPROVAL_CLOCK: {
    means:
      "The times do not fit together: this machine's clock is behind what ledger or target have seen already, or so far ahead of them that it cannot be right. Nothing is recorded under such a time.",
    todo: "Set the clock right; expiry cannot be judged by a wrong one. Where more than a year really went by, two people pin the target again.",
  },
  ERR_STATEMENT_STALE: {
    means:
      "A signed statement (a change of trust or pin, a revocation, a review) does not fit what is there now: it expired, was used, or was made for another target or state.",
    todo: "Prepare it again from what is there now, and have that signed.",
  },
  ERR_PLAN_EXPIRED: {
    means: "The plan is too old to be applied.",
    todo: "Make it again: the rows may have moved, and the new plan says so.",
  },
  ERR_KEY_MISSING: {
    means: "No key was found that can sign here. What was tried is listed.",
    todo: "Name one with --key FILE, or add yours to the agent.",
  },
  ERR_KEY_UNKNOWN: {
    means: "The key is not one that this project's people file knows.",
    todo: "Use the key listed there; adding one is a change of the trust bundle.",
  },
  ERR_KEY_REFUSED: {
    means: "The key would not sign: wrong passphrase, no touch, or the agent refused.",
    todo: "Try again; holdpoint key check says what the key is.",
  },
  ERR_CI_TOKEN: {
    means:
      "The pipeline's identity token is not one that the trust bundle lets do this: another issuer, repository, workflow or ref, for another plan, out of its time, or signed by a key that is not pinned.",
    todo: "Run it from the pipeline that groups.yaml names. Where the CI has new keys, put its key set in place and have the trust bundle accepted (holdpoint trust propose).",
  },
  ERR_CI_TOKEN_MISSING: {
    means:
      "The trust bundle knows pipelines by their identity token, this runs in CI, and there is no token. Variables of the CI are never taken in its place.",
    todo: "Let the job have a token (GitHub: permissions: id-token: write; GitLab: id_tokens:; Buildkite: buildkite-agent on the path).",
  },
  ERR_ENV_CONTRADICTED: {
    means:
      "The target's own signals contradict each other or the configuration: a copy, or another place under this name. Nothing is planned or applied there.",
    todo: "holdpoint env check shows each signal with both sides. Someone who knows settles it.",
  },
  ERR_ENV_NOT_PINNED: {
    means: "The target has no marker, so it cannot prove who it is, and what was asked needs that proof.",
    todo: "A person who knows the place runs holdpoint env pin TARGET once.",
  },
  ERR_ENV_ASSERTION: {
    means: "The environment is not the one that was asserted.",
    todo: "holdpoint env check TARGET shows what the target says.",
  },
  ERR_ENV_PINNED_ALREADY: {
    means: "The target carries a marker already. Replacing one always takes two people.",
    todo: "holdpoint env check TARGET shows what it is pinned as.",
  },
  ERR_TARGET_NOT_PLANNED: {
    means: "This is not the database that the plan was made for: its identity is another.",
    todo: "Check the connection settings with holdpoint env check TARGET. Do not re-pin to make the message go away.",
  },
  ERR_DRIFT_ROWS: {
    means:
      "Rows are neither as the plan saw them nor as it leaves them: someone wrote there since. The approval is for the old rows only.",
    todo: "Make the plan again and have it approved; show --against OLD_PLAN shows only what is new.",
  },
  ERR_DRIFT_SCHEMA: {
    means:
      "Tables, triggers, foreign keys or connection settings are not what they were when the plan was made, so the same rows could have another effect.",
    todo: "Make the plan again.",
  },
  ERR_PLAN_UNCHECKED: {
    means:
      "A plan's bytes could not be checked in the process that reads them first, where there is no key, agent or address in reach and time and memory are bounded.",
    todo: "Do not sign it. Ask for the plan again; if it happens to every plan, holdpoint doctor and the versions of Node and holdpoint come first.",
  },
  ERR_PLAN_ALTERED: {
    means: "The plan's bytes are not the ones that were signed.",
    todo: "Do not retry. Keep the file, tell your security contact, and make the plan again.",
  },
  ERR_STATEMENT_MALFORMED: {
    means: "A statement to sign is not in its one valid form: cut off, edited, or another file.",
    todo: "Use the file as holdpoint wrote it, byte for byte.",
  },
  ERR_PLAN_DIFFERS: {
    means: "What the plan says of itself is not what its rows, the target and the pinned policy say now.",
    todo: "Make the plan again; if nothing changed meanwhile, find out who made this one.",
  },
  ERR_LEDGER_BROKEN: {
    means: "The ledger's chain does not hold: an entry was edited, dropped, swapped or inserted.",
    todo: "holdpoint log verify names the first bad entry. Keep the file as it is.",
  },
  ERR_LEDGER_MISSING: {
    means:
      "The target says that a ledger exists, and there is none here, or it lacks the last entries. A missing ledger is never an empty history.",
    todo: "Bring the ledger here, or run where it is.",
  },
  ERR_LEDGER_OTHER: {
    means: "The ledger here is not the one that the target is anchored to.",
    todo: "Run in the project that the target was pinned from.",
  },
  ERR_CHANGESET_ALTERED: {
    means: "Stored rows are not the ones whose digest was kept.",
    todo: "Do not retry. Keep the file; the snapshot or plan must come from another copy.",
  },
  ERR_SNAPSHOT_UNVERIFIED: {
    means:
      "The snapshot could not be read back as it was written. Without a proven way back nothing is changed.",
    todo: "Look at the store's disk; then run the same command again.",
  },
  ERR_SNAPSHOT_PLACE: {
    means:
      "A snapshot cannot go to that place: it would lie where the target's own loss takes it along, something is there already, or it is the target, whose newer rows a restore would destroy.",
    todo: "Merge with rescue, or restore to a new file; for the store, set store: in holdpoint.yaml to another place.",
  },
  ERR_UNDO_CONFLICT: {
    means:
      "Others changed the same cells since, a deleted row's key lives again, or the target would not take a row back. Undo does not guess whose value is right.",
    todo: "Decide each in the resolutions file, or choose one side for all with --on-conflict.",
  },
  ERR_RESCUE_CONFLICT: {
    means:
      "Rows differ from the snapshot, and neither what was declared of the damage nor the ledger tells whether the damage or their owner changed them.",
    todo: "Declare what the damage did (--damage, --column, --where), or decide each row in the resolutions file.",
  },
  ERR_TARGET_BUSY: {
    means: "Another run has the target, or its write lock was not free in time.",
    todo: "Wait and run the same command again; holdpoint status shows what runs.",
  },
  ERR_TARGET_HELD: {
    means: "Somebody holds the target: no plan runs there until it is released.",
    todo: "holdpoint log says who and why; holdpoint release ends it.",
  },
  ERR_STORE_BUSY: {
    means: "Another holdpoint process holds the store and did not let go in time.",
    todo: "Wait and run the same command again.",
  },
  ERR_REHEARSAL_LIMIT: {
    means:
      "Rehearsing the job on the target would cost it more than is allowed: rows, write-ahead log, or replicas behind.",
    todo: "Cut the job into parts, or rehearse it on a clone. The limits stand in docs/postgres.md.",
  },
  ERR_TARGET_UNREACHABLE: {
    means: "The target could not be opened or reached. That was before any write.",
    todo: "Check the url and the network; holdpoint env check TARGET shows where each part of the url came from.",
  },
  ERR_RUN_STOPPED: {
    means:
      "The run stopped part way. What is committed stays, is known row by row, and the rest was not begun.",
    todo: "Finish with holdpoint apply --resume RUN, or put back what was written with holdpoint undo RUN.",
  },
  ERR_CHECK_PUT_BACK: {
    means: "A check failed after rows were written, and they were put back.",
    todo: "Mend what the check found; the target is as before.",
  },
  ERR_CHECK_FAILED: {
    means: "A check failed after rows were written, and they are still written.",
    todo: "Look at the check first; then holdpoint undo RUN, or go on with --resume.",
  },
  ERR_EFFECT_DIFFERS: {
    means:
      "What was written is not what was signed, found by comparing before the commit. It was rolled back.",
    todo: "Look for triggers or concurrent jobs; then make the plan again.",
  },
  ERR_OUTCOME_UNKNOWN: {
    means: "The connection was lost while a commit was under way: it may or may not have happened.",
    todo: "When the target is back, holdpoint status RUN reads its marks and says which; then resume or undo.",
  },
  ERR_INTERRUPTED: {
    means: "Interrupted before anything was written.",
    todo: "Run the command again when you want to.",
  },
  ERR_TERMINATED: {
    means: "The process was told to end before anything was written.",
    todo: "Run the command again; in CI look at the job's time limit.",
  },
};

/** One code's page. */
export function renderExplanation(
  code: ErrorCode,
  exit: { readonly code: number; readonly name: string },
  palette: Palette,
  width: number,
): string {
  const paper = paperOf(palette, width);
  const { means, todo } = EXPLANATIONS[code];
  return page([
    ...hang({ text: "" }, { text: `${code}  exit ${exit.code} (${exit.name})`, style: palette.title }, paper),
    "",
    ...labelled("Means", means, paper),
    ...labelled("Do", todo, paper),
  ]);
}
