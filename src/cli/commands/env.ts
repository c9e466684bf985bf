/** `env`: where am I. The target answers; a flag, a host name or a variable never does. */
import { Option } from "commander";
import { UsageError } from "../../base/errors.js";
import { targetConfigOf } from "../../config/config.js";
import { writeIdentity } from "../../config/write-identity.js";
import { checkEnvironment, pinEnvironment, type PinPreview } from "../../operations/env.js";
import { ageInWords } from "../../operations/judging/examine.js";
import type { Toolbox } from "../../operations/toolbox.js";
import type { Marker } from "../../target/marker.js";
import { holdWords } from "../../render/hold.js";
import { renderEnvCheck } from "../../render/envcheck.js";
import { type PinView, renderPin, renderTargets } from "../../render/pin.js";
import { originJson } from "../views/plan.js";
import { collect, type Context, type Outcome, type Register } from "../command.js";
import { describeCommand } from "../help.js";
import { repin, type RepinFlags } from "./repin.js";

export const registerEnv: Register = (program, run) => {
  const env = program.command("env");
  describeCommand(env, {
    group: "Set up",
    summary: "check what a target is, pin it, list targets",
    examples: [
      { line: "holdpoint env check elb-prod", what: "ask the target who it is" },
      { line: "holdpoint env pin elb-prod", what: "let it say so from now on" },
    ],
    exits: [22, 33, 39],
  });
  const check = env
    .command("check")
    .argument("<target>", "a target of holdpoint.yaml")
    .addOption(
      new Option("--assert <what>", "end with 33 unless it is so").choices(["production", "not-production"]),
    )
    .action((target: string, flags: { readonly assert?: "production" | "not-production" }) =>
      run("env-check", (cx) => checkTarget(cx, target, flags.assert ?? null)),
    );
  describeCommand(check, {
    group: "Set up",
    summary: "ask the target who it is",
    examples: [
      { line: "holdpoint env check elb-prod", what: "every signal, and the verdict" },
      { line: "holdpoint env check elb-stage --assert not-production", what: "for scripts" },
    ],
    exits: [33, 39],
  });
  const pin = env
    .command("pin")
    .argument("<target>", "a target of holdpoint.yaml")
    .option("--confirm <target>", "the target's name, typed")
    .option("--print-sql", "print the SQL for somebody who may run it; write nothing")
    .option("--replace", "pin again: another place, environment or marker; always takes two people")
    .option("--prepare <file>", "with --replace: write what two people sign")
    .option("--prepared <file>", "with --replace: what they signed")
    .option(
      "--signature <file>",
      "with --prepared: a signature that ssh-keygen wrote; repeatable",
      collect,
      [],
    )
    .action((target: string, flags: PinFlags) =>
      run("env-pin", (cx) =>
        flags.replace === true ? repin(cx, target, flags) : pinTarget(cx, target, flags),
      ),
    );
  describeCommand(pin, {
    group: "Set up",
    summary: "write the marker by which a target says what it is",
    description:
      "Shows what the target is and whom it will trust, then writes holdpoint's own small tables into it: its name and environment, " +
      "the digest of people and policies, the ledger's head. No row of yours is changed.",
    examples: [
      { line: "holdpoint env pin elb-prod", what: "at a terminal" },
      { line: "holdpoint env pin elb-prod --confirm elb-prod", what: "without one" },
      { line: "holdpoint env pin elb-prod --print-sql", what: "for a DBA" },
      { line: "holdpoint env pin elb-prod --replace --prepare pin.txt", what: "after a move or a restore" },
      { line: "ssh-keygen -Y sign -n holdpoint-pin -f KEY pin.txt", what: "two people" },
      {
        line: "holdpoint env pin elb-prod --replace --prepared pin.txt --signature dana.sig --signature ravi.sig",
        what: "write it",
      },
    ],
    exits: [22, 30, 31, 33, 35, 38, 39],
  });
  const list = env.command("list").action(() => run("env-list", listTargets));
  describeCommand(list, {
    group: "Set up",
    summary: "the targets of holdpoint.yaml; connects to nothing",
    examples: [{ line: "holdpoint env list", what: "names, claims, pins" }],
    exits: [],
  });
};

interface PinFlags extends RepinFlags {
  readonly confirm?: string;
  readonly printSql?: boolean;
}

async function checkTarget(
  cx: Context,
  target: string,
  assert: "production" | "not-production" | null,
): Promise<Outcome> {
  const tools = await cx.tools();
  const checked = await checkEnvironment(tools, target, assert);
  const { verdict, marker, origins } = checked.examined;
  const next =
    marker === null && !verdict.contradicted
      ? [{ actor: "dba" as const, argv: ["holdpoint", "env", "pin", target] }]
      : [{ actor: "requester" as const, argv: ["holdpoint", "plan", "JOB", "--on", target] }];
  return {
    result: {
      target,
      verdict: verdict.name,
      guarded_as: verdict.guardedAs,
      contradicted: verdict.contradicted,
      because: verdict.because,
      evidence: verdict.evidence.map((e) => ({
        source: e.source,
        side: e.side,
        strength: e.strength,
        says: e.says,
        state: e.state,
        detail: e.detail,
        expected: e.expected ?? null,
        found: e.found ?? null,
      })),
      origins: origins.map(originJson),
      description: checked.description,
      hold:
        checked.hold === null
          ? null
          : { by: checked.hold.by, at: checked.hold.at, reason: checked.hold.reason },
      debts: checked.debts.map((d) => ({ run: d.subject, by: d.by, at: d.at, reason: d.reason })),
    },
    text: cx.screen(renderEnvCheck, {
      target,
      verdict,
      description: checked.description,
      ...(checked.hold === null ? {} : { hold: holdWords(checked.hold) }),
      origins: origins.map((o) => [`${o.part} from ${o.from}`, ...ageInWords(o)].join(", ")),
      next: verdict.contradicted ? [] : next,
    }),
    ...(checked.debts.length === 0
      ? {}
      : {
          warnings: checked.debts.map(
            (d) =>
              `${d.subject} was applied by ${d.by} under break-glass and waits for  holdpoint approve --review ${d.subject}`,
          ),
        }),
  };
}

async function pinTarget(cx: Context, target: string, flags: PinFlags): Promise<Outcome> {
  const tools = await cx.tools();
  const pinned = await pinEnvironment(tools, {
    name: target,
    printSql: flags.printSql === true,
    confirm: (preview) => confirmPin(cx, tools, target, flags.confirm, preview),
    writeIdentity: (identity) => writeIdentity(tools.project.config.file, target, identity),
  });
  const { marker } = pinned;
  const result = {
    target,
    pinned: pinned.written,
    identity: marker.identity,
    environment: marker.environment,
    bundle: marker.bundle,
    ledger: marker.ledger,
  };
  if (!pinned.written) {
    return { result: { ...result, sql: pinned.sql }, text: sqlText(target, marker, pinned.sql) };
  }
  return { result, text: cx.screen(renderPin, pinView(tools, target, pinned, true)), targetChanged: "yes" };
}

/** Comments say what the SQL is and what is left to do, because the page is handed to somebody else. */
function sqlText(target: string, marker: Marker, sql: readonly string[]): string {
  return [
    `-- Pins ${target} as ${marker.environment}. Run it whole, as an owner of the database.`,
    `-- Trust bundle ${marker.bundle}: compare it with holdpoint trust show --on ${target}`,
    `-- Then write under ${target} in holdpoint.yaml:  identity: ${marker.identity}`,
    ...sql.map((statement) => `${statement};`),
    "",
  ].join("\n");
}

async function confirmPin(
  cx: Context,
  tools: Toolbox,
  target: string,
  flag: string | undefined,
  preview: PinPreview,
): Promise<void> {
  const view = pinView(tools, target, preview, false);
  if (flag === undefined) cx.say(renderPin(view, cx.streams.errPalette, cx.streams.width));
  const typed =
    flag ??
    (await cx.prompter.ask({
      message: "Type the target's name to pin it: ",
      needs: `pinning ${target} needs its name`,
      flag: ["--confirm", "TARGET"],
    }));
  if (typed === target) return;
  throw new UsageError({
    code: "ERR_USAGE",
    message: "that is not the target's name",
    why: flag === undefined ? `you typed ${JSON.stringify(typed)}` : `--confirm says ${JSON.stringify(flag)}`,
  });
}

function pinView(tools: Toolbox, target: string, preview: PinPreview, done: boolean): PinView {
  const { marker } = preview;
  const configured = targetConfigOf(tools.project.config, target);
  return {
    target,
    verdict: done ? marker.environment : "unproven",
    description: preview.description,
    environment: marker.environment,
    identity: marker.identity,
    bundle: marker.bundle,
    ledger: marker.ledger,
    people: preview.people.map((p) => `${p.name} ${p.keys.join(" ")}`),
    writes: [
      "tables holdpoint_* in the target",
      `identity of ${configured.name} in ${tools.project.config.file}`,
    ],
    done,
    next: done ? [{ actor: "requester", argv: ["holdpoint", "plan", "JOB", "--on", target] }] : [],
  };
}

async function listTargets(cx: Context): Promise<Outcome> {
  const { config } = (await cx.tools()).project;
  const targets = Object.values(config.targets).map((t) => ({
    target: t.name,
    adapter: adapterWord(t.url),
    claims: t.environment ?? "nothing",
    identity: t.identity,
    from: config.at(["targets", t.name, "url"]),
  }));
  return { result: { targets }, text: cx.screen(renderTargets, targets) };
}

/** From the text of the url alone; a variable may stand for all of it. */
function adapterWord(url: string): string {
  return url.startsWith("$") ? "from a variable" : (url.split(":")[0] ?? "");
}
