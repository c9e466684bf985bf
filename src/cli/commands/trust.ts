/** `trust`: who may sign, and whether targets believe the same. */
import type { Trust } from "../../operations/trust.js";
import { showTrust } from "../../operations/trust.js";
import { renderTrust } from "../../render/trust.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";

export const registerTrust: Register = (program, run) => {
  const trust = program.command("trust");
  describeCommand(trust, {
    group: "Set up",
    summary: "people, groups, policies, and what targets pin of them",
    examples: [{ line: "holdpoint trust show", what: "the bundle here beside the pinned ones" }],
    exits: [],
  });
  const show = trust
    .command("show")
    .option("--on <target>", "this target only")
    .action((flags: { readonly on?: string }) => run("trust-show", (cx) => showBundle(cx, flags.on ?? null)));
  describeCommand(show, {
    group: "Set up",
    summary: "who may sign, from which files, and whether targets believe the same",
    examples: [{ line: "holdpoint trust show --on elb-prod", what: "one target" }],
    exits: [],
  });
};

async function showBundle(cx: Context, on: string | null): Promise<Outcome> {
  const tools = await cx.tools();
  const trust = await showTrust(tools, on);
  const targets = trust.targets.map((t) => ({
    target: t.target,
    environment: tools.project.config.targets[t.target]?.environment ?? "nothing",
    bundle: t.here,
    pinned: pinnedWord(t),
  }));
  return {
    result: {
      people: trust.people.map((p) => ({
        name: p.name,
        groups: p.groups,
        keys: p.keys.map((k) => ({ type: k.type, fingerprint: k.fingerprint, namespaces: k.namespaces })),
      })),
      policies: trust.policies,
      targets: trust.targets.map((t) => ({
        target: t.target,
        bundle: t.here,
        pinned: t.pinned,
        state: pinnedWord(t),
      })),
    },
    text: cx.screen(renderTrust, {
      people: trust.people.map((p) => ({
        name: p.name,
        groups: p.groups,
        keys: p.keys.map((k) => ({
          fingerprint: k.fingerprint,
          type: k.type,
          line: k.line,
          validity: validity(k.validAfter, k.validBefore),
        })),
      })),
      policies: trust.policies.map((p) => p.path),
      targets,
      next: [],
    }),
  };
}

function pinnedWord(t: Trust["targets"][number]): "same" | "other" | "not pinned" | "not asked" {
  if (!t.reachable) return "not asked";
  if (t.pinned === null) return "not pinned";
  return t.pinned === t.here ? "same" : "other";
}

function validity(after: string | null, before: string | null): string {
  const from = after === null ? "" : `from ${after} `;
  return before === null && after === null
    ? "always"
    : `${from}${before === null ? "" : `until ${before}`}`.trim();
}
