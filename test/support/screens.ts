/** Every screen as a function of palette and width, over the views of `render-views.ts` or a changed copy of them. */
import { renderApplyEnd, renderCheck } from "../../src/render/apply.js";
import {
  renderApprovalEnd,
  renderAuthor,
  renderReadBack,
  renderReview,
  renderReviewer,
  renderSigning,
} from "../../src/render/approve.js";
import { renderBanner } from "../../src/render/banner.js";
import { card, renderCard } from "../../src/render/card.js";
import { renderDoctor } from "../../src/render/doctor.js";
import { renderDrift } from "../../src/render/drift.js";
import { renderEnvCheck } from "../../src/render/envcheck.js";
import { renderError } from "../../src/render/error.js";
import { renderPolicyExplain } from "../../src/render/explain-policy.js";
import { renderExplanation } from "../../src/render/explain.js";
import { renderInit } from "../../src/render/init.js";
import { renderEntries, renderLog } from "../../src/render/log.js";
import type { Palette } from "../../src/render/palette.js";
import { renderPin, renderTargets } from "../../src/render/pin.js";
import { renderPlan } from "../../src/render/plan.js";
import { renderPolicyLint, renderPolicyTests } from "../../src/render/policy-checks.js";
import { renderRows } from "../../src/render/rows.js";
import { renderStatus } from "../../src/render/status.js";
import { renderTrust } from "../../src/render/trust.js";
import { renderUndo } from "../../src/render/undo.js";
import * as checks from "./check-views.js";
import * as views from "./render-views.js";

/** A screen. `spoil` changes the view before it is drawn: the identity, or something hostile in every string. */
export type Screen = (p: Palette, width: number, spoil?: <T>(view: T) => T) => string;

const keep = <T>(view: T): T => view;

export const SCREENS: Readonly<Record<string, Screen>> = {
  plan: (p, w, spoil = keep) => renderPlan(spoil(views.planView), p, w),
  "plan-empty": (p, w, spoil = keep) => renderPlan(spoil(views.emptyPlanView), p, w),
  "plan-denied": (p, w, spoil = keep) =>
    renderPlan(spoil({ ...views.planView, decision: views.denied, card: card(views.troubled) }), p, w),
  rows: (p, w, spoil = keep) => renderRows(spoil(views.rows), p, w),
  card: (p, w, spoil = keep) => renderCard(card(spoil(views.facts)), p, w),
  "card-troubled": (p, w, spoil = keep) => renderCard(card(spoil(views.troubled)), p, w),
  approve: (p, w, spoil = keep) => approveScreen(p, w, spoil),
  apply: (p, w, spoil = keep) =>
    views.checkViews.map((c) => renderCheck(spoil(c), p, w)).join("") +
    renderApplyEnd(spoil(views.applyView), p, w),
  "apply-stopped": (p, w, spoil = keep) => renderApplyEnd(spoil(views.stoppedView), p, w),
  drift: (p, w, spoil = keep) => renderDrift(spoil(views.driftView), p, w),
  undo: (p, w, spoil = keep) => renderUndo(spoil(views.undoView), p, w),
  "undo-applied": (p, w, spoil = keep) =>
    renderUndo(
      spoil({
        ...views.undoView,
        counts: { put_back: 2532, nothing_to_do: 0, merged: 0, conflict: 0 },
        conflicts: [],
        byTenant: [],
        end: { kind: "applied", run: "rn_0aa6e1pk2c3d4e5f", seconds: 2.25, written: 2532 },
        next: [],
      }),
      p,
      w,
    ),
  log: (p, w, spoil = keep) => renderLog(spoil(views.logView), p, w),
  "log-broken": (p, w, spoil = keep) =>
    renderEntries(
      spoil({
        title: "rn_5c0e2fqa9d4k7m1x",
        entries: [
          { sequence: 4, at: "2026-11-24T14:38:44Z", kind: "run-started", facts: ["rows 2,532", "by dana"] },
        ],
        chain: { kind: "broken", entries: 12, firstBad: 5, why: "entry 5 names another entry before it" },
      }),
      p,
      w,
    ),
  "policy-explain": (p, w, spoil = keep) => renderPolicyExplain(spoil(views.policyView), p, w),
  "policy-test": (p, w, spoil = keep) => renderPolicyTests(spoil(checks.testedView), p, w),
  "policy-lint": (p, w, spoil = keep) => renderPolicyLint(spoil(checks.lintView), p, w),
  doctor: (p, w, spoil = keep) => renderDoctor(spoil(checks.doctorView), p, w),
  "env-check": (p, w, spoil = keep) => renderEnvCheck(spoil(views.envView), p, w),
  "env-unproven": (p, w, spoil = keep) => renderEnvCheck(spoil(views.unprovenView), p, w),
  "env-pin": (p, w, spoil = keep) => renderPin(spoil(views.pinView), p, w),
  "env-list": (p, w, spoil = keep) =>
    renderTargets(
      spoil([
        {
          target: "elb-prod",
          adapter: "sqlite",
          claims: "production",
          identity: views.pinView.identity,
          from: "ELB_PROD_URL",
        },
      ]),
      p,
      w,
    ),
  status: (p, w, spoil = keep) => renderStatus(spoil(views.statusView), p, w),
  trust: (p, w, spoil = keep) => renderTrust(spoil(views.trustView), p, w),
  init: (p, w, spoil = keep) => renderInit(spoil(views.initView), p, w),
  error: (p, w, spoil = keep) => renderError(spoil(views.errorView), p, w),
  explain: (p, w) => renderExplanation("ERR_DRIFT_ROWS", { code: 34, name: "drift" }, p, w),
};

function approveScreen(p: Palette, w: number, spoil: <T>(view: T) => T): string {
  const reviewer = {
    approver: "ravi",
    groups: ["dba"],
    key: "SHA256:c9…1f",
    requester: "dana",
    plan: "pl_k7q2m9xw3fh8c1vz",
  };
  return [
    renderReviewer(spoil(reviewer), p, w),
    renderReadBack(spoil({ table: "listeners", ticket: "OPS-4412" }), p, w),
    renderBanner(spoil(views.reviewView.banner), p, w),
    renderReview(spoil(views.reviewView), p, w),
    renderAuthor(
      spoil({ requester: "dana", reason: "old listeners are in the way", ticket: "OPS-4412" }),
      p,
      w,
    ),
    renderSigning(spoil(views.signingView), p, w),
    renderApprovalEnd(spoil(views.approvalEnd), p, w),
  ].join("\n");
}
