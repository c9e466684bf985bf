/** Views of the screens that check a set-up: doctor, policy test, policy lint. */
import type { DoctorLine } from "../../src/render/doctor.js";
import type { TestedFileView } from "../../src/render/policy-checks.js";
import type { LintFinding } from "../../src/policy/lint.js";

export const doctorView: readonly DoctorLine[] = [
  {
    check: "config",
    target: null,
    level: "ok",
    what: "2 targets, 3 jobs in /srv/elb/holdpoint.yaml",
    todo: [],
  },
  {
    check: "policies",
    target: null,
    level: "stop",
    what: "prod-write asks for dba, which is no group (policies/production.yaml:12:5)",
    todo: [{ actor: "anyone", argv: ["holdpoint", "policy", "lint"] }],
  },
  { check: "target", target: "elb-prod", level: "ok", what: "production, pinned", todo: [] },
  {
    check: "way-around",
    target: "elb-prod",
    level: "stop",
    what: "DATABASE_URL names this target: any tool that reads it writes here without a plan",
    todo: [{ actor: "anyone", argv: ["unset", "DATABASE_URL"] }],
  },
  {
    check: "way-around",
    target: "elb-prod",
    level: "look",
    what: "this login can write /srv/state/elb.db without holdpoint (mode 0644)",
    todo: [{ actor: "dba", text: "Give the file to a login of its own, and apply under that one." }],
  },
];

export const testedView: readonly TestedFileView[] = [
  {
    file: "policies/production.yaml",
    enabled: true,
    outcomes: [
      {
        name: "a quarter of a table may be deleted",
        at: "policies/production.yaml:54",
        passed: true,
        diff: [],
      },
      {
        name: "a third of the holds",
        at: "policies/production.yaml:61",
        passed: false,
        diff: [
          "- decision  needs-approval",
          "+ decision  deny",
          "  deny      quarter-deleted (policies/production.yaml:22): holds: deleted_share = 0.3333",
        ],
      },
    ],
  },
  { file: "policies/holiday-freeze.yaml", enabled: false, outcomes: [] },
];

export const lintView: readonly LintFinding[] = [
  {
    at: "policies/production.yaml:4:7",
    severity: "warning",
    kind: "stop-sign-off",
    what: "the stop sign over-half-updated is off: nightly price import rewrites the table",
  },
  {
    at: "policies/production.yaml:12:5",
    severity: "error",
    kind: "unknown-group",
    what: "prod-write asks for dba, which is no group",
  },
];
