/** `key`: which keys the people file knows, which lie here, and whether one of them signs. */
import { checkKey, type JudgedKey, type KeyPurpose, listKeys } from "../../operations/keys.js";
import { renderKeyCheck, renderKeyList } from "../../render/key.js";
import type { Context, Outcome, Register } from "../command.js";
import { describeCommand } from "../help.js";
import { validity } from "./trust.js";

export const registerKey: Register = (program, run) => {
  const key = program.command("key");
  describeCommand(key, {
    group: "Set up",
    summary: "which keys are known, which lie here, and whether one signs",
    examples: [
      { line: "holdpoint key list", what: "people's keys beside those in the agent and in ~/.ssh" },
      { line: "holdpoint key check", what: "sign a trial with the key that approve would use" },
    ],
    exits: [31, 32],
  });
  const list = key.command("list").action(() => run("key-list", showKeys));
  describeCommand(list, {
    group: "Set up",
    summary: "the keys that the people file knows, and those in reach here",
    examples: [{ line: "holdpoint key list", what: "signs nothing" }],
    exits: [],
  });
  const check = key
    .command("check")
    .option("--key <file>", "the SSH key to try; without it, the one that approve would use")
    .action((flags: { readonly key?: string }) => run("key-check", (cx) => tryKey(cx, flags.key)));
  describeCommand(check, {
    group: "Set up",
    summary: "whose key it is, what it may sign, and whether it signs",
    description:
      "Makes a trial signature that allows nothing. Where the key cannot be used, says which of these it is: not there, not on " +
      "the list, not for this purpose, not valid now, or not willing to sign.",
    examples: [
      { line: "holdpoint key check", what: "the key that approve would use" },
      { line: "holdpoint key check --key ~/.ssh/id_ed25519", what: "this one" },
    ],
    exits: [31, 32],
  });
};

async function showKeys(cx: Context): Promise<Outcome> {
  const listing = await listKeys(await cx.tools());
  return {
    result: {
      people: listing.people.map((p) => ({
        name: p.name,
        groups: p.groups,
        keys: p.keys.map((k) => ({ type: k.type, fingerprint: k.fingerprint, namespaces: k.namespaces })),
      })),
      in_reach: listing.inReach.map((k) => ({
        source: k.key.source,
        where: k.key.where,
        type: k.key.signer.key.type,
        fingerprint: k.key.signer.key.fingerprint,
        person: k.person,
        purposes: k.purposes.map(purposeResult),
      })),
      problems: listing.problems,
    },
    text: cx.screen(renderKeyList, {
      people: listing.people.map((p) => ({
        name: p.name,
        groups: p.groups,
        keys: p.keys.map((k) => ({
          fingerprint: k.fingerprint,
          type: k.type,
          line: k.line,
          validity: validity(k.validAfter, k.validBefore),
        })),
      })),
      inReach: listing.inReach.map((k) => ({
        where: k.key.source === "agent" ? `agent (${k.key.where})` : k.key.where,
        fingerprint: k.key.signer.key.fingerprint,
        type: k.key.signer.key.type,
        whose: whose(k),
      })),
      problems: listing.problems,
      next: [{ actor: "anyone", argv: ["holdpoint", "key", "check"] }],
    }),
  };
}

async function tryKey(cx: Context, flag: string | undefined): Promise<Outcome> {
  const checked = await checkKey(await cx.tools(), flag);
  return {
    result: {
      fingerprint: checked.fingerprint,
      person: checked.person,
      groups: checked.groups,
      signed: true,
      purposes: checked.purposes.map(purposeResult),
      problems: checked.problems,
    },
    text: cx.screen(renderKeyCheck, {
      fingerprint: checked.fingerprint,
      person: checked.person,
      groups: checked.groups,
      may: checked.purposes.filter((p) => p.owner.kind === "person").map((p) => p.namespace),
      mayNot: checked.purposes.flatMap((p) =>
        p.owner.kind === "person" ? [] : [`${p.namespace}: ${p.owner.why}`],
      ),
      next: [],
    }),
  };
}

function purposeResult(p: KeyPurpose): Record<string, unknown> {
  return {
    namespace: p.namespace,
    state: p.owner.kind === "person" ? "good" : p.owner.kind,
    why: p.owner.kind === "person" ? null : p.owner.why,
  };
}

function whose(k: JudgedKey): string {
  if (k.person === null) return "nobody on the list";
  const good = k.purposes.filter((p) => p.owner.kind === "person");
  if (good.length > 0)
    return `${k.person}: ${good.map((p) => p.namespace.replace("holdpoint-", "")).join(", ")}`;
  const first = k.purposes[0]?.owner;
  return first === undefined || first.kind === "person" ? k.person : first.why;
}
