/** `trust`: who may sign, and whether targets believe the same. */
import type { Trust } from "../../operations/trust.js";
import { showTrust } from "../../operations/trust.js";
import { renderTrust } from "../../render/trust.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { accept, propose } from "./trust-change.js";

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
  const proposal = trust
    .command("propose")
    .option("--on <target>", "the target whose pinned bundle is to change")
    .requiredOption("--out <file>", "where the statement to sign is written")
    .action((flags: { readonly on?: string; readonly out: string }) =>
      run("trust-propose", (cx) => propose(cx, flags)),
    );
  describeCommand(proposal, {
    group: "Set up",
    summary: "what would change of the pinned bundle, and the file to sign for it",
    description:
      "Compares the bundle that the target pins with people, groups, policies and guarding configuration here, change by change. " +
      "People of the pinned bundle sign the file: at least two for production.",
    examples: [
      { line: "holdpoint trust propose --on elb-prod --out change.txt", what: "the diff, and the file" },
      {
        line: "ssh-keygen -Y sign -n holdpoint-trust -f KEY change.txt",
        what: "each signer, on their machine",
      },
    ],
    exits: [30, 31, 33, 35, 39],
  });
  const acceptance = trust
    .command("accept")
    .argument("<file>", "the file that trust propose wrote")
    .requiredOption("--signature <file>", "a signature that ssh-keygen wrote; repeatable", collect, [])
    .action((file: string, flags: { readonly signature: readonly string[] }) =>
      run("trust-accept", (cx) => accept(cx, file, flags)),
    );
  describeCommand(acceptance, {
    group: "Set up",
    summary: "pin the bundle that lies here, signed by a quorum of the old one",
    description:
      "Counts people of the pinned bundle, never of the new one. The target's marker gets the new bundle's digest, the ledger the " +
      "statement with its signatures. Plans made before must be made again.",
    examples: [
      {
        line: "holdpoint trust accept change.txt --signature dana.sig --signature ravi.sig",
        what: "both signed change.txt",
      },
    ],
    exits: [30, 31, 33, 35, 38, 39],
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

/** A key's validity in words. */
export function validity(after: string | null, before: string | null): string {
  const from = after === null ? "" : `from ${after} `;
  return before === null && after === null
    ? "always"
    : `${from}${before === null ? "" : `until ${before}`}`.trim();
}
