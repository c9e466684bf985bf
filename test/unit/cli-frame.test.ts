import { readFileSync } from "node:fs";
import { describe, expect, test } from "@jest/globals";
import { Command } from "commander";
import { ERROR_CODES, HoldpointError, RefusedError, type TargetChanged } from "../../src/base/errors.js";
import { envelope, envelopeText, failureEnvelope } from "../../src/cli/envelope.js";
import { EXIT_TABLE, exitCodeOf, exitName, exitOf } from "../../src/cli/exit-codes.js";
import { COMMANDS } from "../../src/cli/commands/index.js";
import { describeCommand } from "../../src/cli/help.js";
import { createProgress } from "../../src/cli/progress.js";
import { createPrompter } from "../../src/cli/prompts.js";
import { chooseColor, chooseStreams, settleColor, type Streams } from "../../src/cli/streams.js";
import { plainPalette } from "../../src/render/palette.js";
import { renderError } from "../../src/render/error.js";
import { EXPLANATIONS } from "../../src/render/explain.js";
import { barLine, logLine, type WaveState } from "../../src/render/progress.js";

const CHANGED: readonly TargetChanged[] = ["no", "yes", "partly", "unknown"];

const STATES: Readonly<Record<TargetChanged, RegExp>> = {
  no: /Nothing was written/,
  yes: /THE TARGET WAS CHANGED/,
  partly: /THE TARGET WAS CHANGED/,
  unknown: /It is not known whether/,
};

describe("exit codes", () => {
  test.each(ERROR_CODES)("%s has one, and an explanation", (code) => {
    expect(EXIT_TABLE.map((e) => e.code)).toContain(exitCodeOf(code));
    expect(EXPLANATIONS[code].means).not.toBe("");
    expect(EXPLANATIONS[code].todo).not.toBe("");
  });

  test.each(ERROR_CODES)("%s is told with its code, its state and where to read more", (code) => {
    for (const width of [40, 100]) {
      for (const targetChanged of CHANGED) {
        const error = new RefusedError({ code, message: "something happened", targetChanged });
        const lines = renderError(error, plainPalette, width).split("\n");
        expect(lines[0]).toContain(`✗ ${code}`);
        const state = lines.find((l) => l.startsWith("  State  "));
        expect(state).toMatch(STATES[targetChanged]);
        expect(lines.join(" ").replaceAll(/[\s\\]+/g, " ")).toContain(`holdpoint explain ${code}`);
      }
    }
  });

  test("are told apart by code and by name", () => {
    expect(new Set(EXIT_TABLE.map((e) => e.code)).size).toBe(EXIT_TABLE.length);
    expect(new Set(EXIT_TABLE.map((e) => e.name)).size).toBe(EXIT_TABLE.length);
    expect([exitName(0), exitName(34), exitName(130)]).toEqual(["ok", "drift", "interrupted"]);
  });

  test.each(ERROR_CODES)("%s never promises that nothing was written when something was", (code) => {
    for (const targetChanged of CHANGED) {
      const exit = exitOf({ code, targetChanged });
      if (targetChanged === "no") expect(exit).toBe(exitCodeOf(code));
      else expect([40, 41, 42, 43]).toContain(exit);
      if (targetChanged === "unknown") expect(exit).toBe(43);
    }
  });
});

describe("the envelope", () => {
  test("of a success", () => {
    expect(envelope("plan", { exit: 20, targetChanged: "no", result: { plan: "pl_1" } })).toEqual({
      schema: "holdpoint/plan@1",
      ok: true,
      exit: { code: 20, name: "changes" },
      target_changed: "no",
      result: { plan: "pl_1" },
      error: null,
      warnings: [],
    });
  });

  test("of a failure", () => {
    const error = new RefusedError({
      code: "ERR_APPROVAL_SELF",
      message: "you made this plan",
      why: "both are dana",
      next: [{ actor: "approver", argv: ["holdpoint", "approve", "pl_1"] }],
    });
    expect(failureEnvelope("approve", error, { warnings: ["w"] })).toEqual({
      schema: "holdpoint/approve@1",
      ok: false,
      exit: { code: 31, name: "approval" },
      target_changed: "no",
      result: null,
      error: {
        code: "ERR_APPROVAL_SELF",
        what: "you made this plan",
        why: "both are dana",
        next: [{ actor: "approver", argv: ["holdpoint", "approve", "pl_1"] }],
      },
      warnings: ["w"],
    });
  });

  test("is one document that parses back to itself", () => {
    const document = envelope("log-verify", {
      exit: 0,
      targetChanged: "no",
      result: { entries: 3, first_bad: null },
    });
    expect(JSON.parse(envelopeText(document))).toEqual(document);
    expect(envelopeText(document).endsWith("}\n")).toBe(true);
  });

  test.each<[string, unknown]>([
    ["a bigint", { rows: [1n] }],
    ["bytes", { key: new Uint8Array([1]) }],
    ["a date", { at: new Date(0) }],
    ["a map", { m: new Map() }],
    ["NaN", { n: Number.NaN }],
    ["an integer that is rounded", { n: 2 ** 60 }],
    ["a function", { f: () => 1 }],
  ])("refuses %s", (_what, result) => {
    expect(() => envelope("x", { exit: 0, targetChanged: "no", result })).toThrow(
      expect.objectContaining({ code: "ERR_INTERNAL" }),
    );
  });
});

const TTY = { isTTY: true, columns: 120 };
const PIPE = {};

describe("streams", () => {
  test.each<[string, string[], Record<string, string>, 0 | 1]>([
    ["a terminal", [], {}, 1],
    ["--color=never", ["--color=never"], { FORCE_COLOR: "1" }, 0],
    ["--color always beats everything", ["--color", "always"], { NO_COLOR: "1", TERM: "dumb" }, 1],
    ["--no-color", ["--no-color"], { HOLDPOINT_COLOR: "always" }, 0],
    ["HOLDPOINT_COLOR beats FORCE_COLOR", [], { HOLDPOINT_COLOR: "never", FORCE_COLOR: "1" }, 0],
    ["HOLDPOINT_COLOR=auto says nothing", [], { HOLDPOINT_COLOR: "auto", NO_COLOR: "1" }, 0],
    ["FORCE_COLOR beats NO_COLOR", [], { FORCE_COLOR: "1", NO_COLOR: "1" }, 1],
    ["FORCE_COLOR=0", [], { FORCE_COLOR: "0" }, 0],
    ["FORCE_COLOR empty is unset", [], { FORCE_COLOR: "", NO_COLOR: "1" }, 0],
    ["NO_COLOR beats CLICOLOR_FORCE", [], { NO_COLOR: "1", CLICOLOR_FORCE: "1" }, 0],
    ["NO_COLOR empty is unset", [], { NO_COLOR: "" }, 1],
    ["CLICOLOR_FORCE beats TERM=dumb", [], { CLICOLOR_FORCE: "1", TERM: "dumb" }, 1],
    ["TERM=dumb", [], { TERM: "dumb" }, 0],
    ["CLICOLOR=0", [], { CLICOLOR: "0" }, 0],
  ])("colour on a terminal: %s", (_what, flags, env, level) => {
    expect(chooseColor(flags, env, true)).toBe(level);
  });

  test("--color without a value takes no command for one, and a wrong value is the parser's to refuse", () => {
    expect(settleColor(["--color", "status"])).toEqual(["--color=always", "status"]);
    expect(settleColor(["--color", "0", "status", "--color"])).toEqual([
      "--color=never",
      "status",
      "--color=always",
    ]);
    expect(settleColor(["status", "--color=true", "--color=pink", "--color="])).toEqual([
      "status",
      "--color=always",
      "--color=pink",
      "--color=",
    ]);
  });

  test("no colour off a terminal unless forced", () => {
    expect(chooseColor([], {}, false)).toBe(0);
    expect(chooseColor([], { FORCE_COLOR: "1" }, false)).toBe(1);
  });

  test.each<[string, string[], Record<string, string>, object, boolean]>([
    ["a terminal at both ends", [], {}, { stdin: TTY, stderr: TTY }, true],
    ["stdout in a pipe", [], {}, { stdin: TTY, stderr: TTY, stdout: PIPE }, true],
    ["stdin in a pipe", [], {}, { stdin: PIPE, stderr: TTY }, false],
    ["stderr in a file", [], {}, { stdin: TTY, stderr: PIPE }, false],
    ["CI", [], { CI: "true" }, { stdin: TTY, stderr: TTY }, false],
    ["CI=false", [], { CI: "false" }, { stdin: TTY, stderr: TTY }, true],
    ["--no-input", ["--no-input"], {}, { stdin: TTY, stderr: TTY }, false],
    [
      "--no-input of somebody else's command",
      ["plan", "--", "x", "--no-input"],
      {},
      { stdin: TTY, stderr: TTY },
      true,
    ],
  ])("interactive or not: %s", (_what, argv, env, ends, interactive) => {
    expect(chooseStreams(argv, env, { stdin: PIPE, stdout: TTY, stderr: PIPE, ...ends }).isInteractive).toBe(
      interactive,
    );
  });

  test.each<[string, string[], Record<string, string>, number]>([
    ["the terminal's", [], {}, 120],
    ["--width", ["--width", "80"], {}, 80],
    ["--width=", ["--width=20"], {}, 40],
    ["a wide one is bounded", ["--width=999"], {}, 160],
  ])("width: %s", (_what, argv, env, width) => {
    expect(chooseStreams(argv, env, { stdin: TTY, stdout: TTY, stderr: TTY }).width).toBe(width);
  });

  test("100 columns where nothing says", () => {
    expect(chooseStreams([], {}, { stdin: PIPE, stdout: PIPE, stderr: PIPE }).width).toBe(100);
  });

  test.each<[string, string[], Record<string, string>, string]>([
    ["no locale", [], {}, "text"],
    ["a UTF-8 locale", [], { LANG: "en_US.UTF-8" }, "text"],
    ["LC_ALL=C", [], { LC_ALL: "C", LANG: "en_US.UTF-8" }, "plain"],
    ["--plain", ["--plain"], {}, "plain"],
    ["ACCESSIBLE", [], { ACCESSIBLE: "1" }, "accessible"],
    ["--accessible", ["--accessible", "--plain"], {}, "accessible"],
  ])("form: %s", (_what, argv, env, form) => {
    expect(chooseStreams(argv, env, { stdin: TTY, stdout: TTY, stderr: TTY }).form).toBe(form);
  });
});

/** Streams that only collect what is written. */
function recorded(over: Partial<Streams> = {}): Streams & { readonly written: () => string } {
  let text = "";
  return {
    ...chooseStreams([], {}, { stdin: PIPE, stdout: PIPE, stderr: PIPE }),
    stdio: { stdin: process.stdin, stdout: process.stdout, stderr: process.stderr },
    outPalette: plainPalette,
    errPalette: plainPalette,
    out: () => {},
    err: (t) => void (text += t),
    outClosed: () => false,
    flush: () => Promise.resolve(),
    written: () => text,
    ...over,
  };
}

describe("prompts without a terminal", () => {
  const question = {
    message: "Type the name:",
    needs: "apply on shop-prod needs the target's name",
    flag: ["--confirm", "TARGET"] as const,
  };

  test("refuse with the flag, and without the value that is asked for", async () => {
    const asked = createPrompter(recorded()).askExactly(
      { ...question, flag: [...question.flag] },
      "s3cret-name",
    );
    const error: unknown = await asked.catch((e: unknown) => e);
    expect(error).toMatchObject({ code: "ERR_INPUT_NEEDED", targetChanged: "no" });
    expect(error instanceof HoldpointError ? error.next : []).toEqual([
      { actor: "anyone", text: "Add  --confirm TARGET  with the value that you mean." },
    ]);
    expect(JSON.stringify(error)).not.toContain("s3cret-name");
  });

  test("a question for a person has no flag to name", async () => {
    await expect(createPrompter(recorded()).ask({ ...question, flag: null })).rejects.toMatchObject({
      code: "ERR_INPUT_NEEDED",
      next: [{ actor: "anyone", text: "Run it at a terminal: this is for a person." }],
    });
  });

  test("--json asks nothing that a flag answers, at a terminal too", async () => {
    const prompter = createPrompter(recorded({ isInteractive: true }), { json: true });
    await expect(prompter.ask({ ...question, flag: [...question.flag] })).rejects.toMatchObject({
      code: "ERR_INPUT_NEEDED",
    });
  });
});

describe("progress off a terminal", () => {
  const wave: WaveState = {
    wave: 2,
    waves: 3,
    rows: 276,
    ofRows: 2526,
    rate: null,
    lagSeconds: null,
    paused: null,
    checks: { passed: 3, of: 3 },
    done: true,
  };

  test("a line for each wave, one every ten seconds within, one when it pauses", () => {
    let now = Date.parse("2026-11-24T14:38:44Z");
    const streams = recorded();
    const progress = createProgress(streams, { now: () => new Date(now) });
    progress.wave(wave);
    const third = { ...wave, wave: 3, rows: 1116, rate: 84, lagSeconds: 0.2, checks: null, done: false };
    now += 5000;
    progress.wave(third);
    now += 5000;
    progress.wave(third);
    now += 1000;
    progress.wave({ ...third, paused: "lag 2.4 s" });
    progress.end();
    expect(streams.written().split("\n")).toEqual([
      "14:38:44Z wave 2/3 done rows=276/2526 checks=3/3",
      "14:38:54Z wave 3/3 rows=1116/2526 rate=84/s eta=17s lag=0.2s",
      `14:38:55Z wave 3/3 paused reason="lag 2.4 s" rows=1116/2526 rate=84/s eta=17s lag=0.2s`,
      "",
    ]);
  });

  test("waits and checks are lines; hostile names are escaped; quiet says nothing", () => {
    const streams = recorded();
    const progress = createProgress(streams, { now: () => new Date(0) });
    progress.begin("opening \u001b[2Jx")("open");
    progress.check("rows are as planned", "3.1 s");
    expect(streams.written()).toBe(
      `  opening \\x1b[2Jx ...\n  open\n  check     rows are as planned (3.1 s)${" ".repeat(59)}ok\n`,
    );
    const quiet = recorded();
    const silent = createProgress(quiet, { now: () => new Date(0) }, { quiet: true });
    silent.begin("x")("y");
    silent.check("x");
    silent.wave(wave);
    silent.end();
    expect(quiet.written()).toBe("");
  });

  test("the bar shows what is left, or why it waits", () => {
    const paper = { palette: plainPalette, width: 100 };
    const half = { ...wave, rows: 1389, rate: 84, done: false };
    expect(barLine(half, paper)).toBe("  wave 2/3  ██████████░░░░░░░░░░ 54 %  1,389  84 rows/s  14 s left");
    expect(barLine({ ...half, rate: null }, paper)).toContain("-- left");
    expect(barLine({ ...half, paused: "lag 2.4 s" }, { ...paper, width: 40 })).toBe(
      "  2/3 54 % paused: lag 2.4 s",
    );
    expect(logLine({ ...half, done: true }, "2026-11-24T14:38:44Z")).toBe(
      "14:38:44Z wave 2/3 done rows=1389/2526 rate=84/s checks=3/3",
    );
  });
});

describe("help", () => {
  test("shows examples, then options, then the exit codes of the command", () => {
    const root = new Command("holdpoint")
      .option("--json", "one document")
      .configureHelp({ showGlobalOptions: true });
    const command = describeCommand(
      root.command("apply").argument("<plan>", "which").option("--dry-run", "check only"),
      {
        group: "Lifecycle",
        summary: "apply a plan",
        examples: [{ line: "holdpoint apply pl_k7q2", what: "apply it" }],
        exits: [21, 34, 40],
      },
    );
    const text = command.configureOutput({ getOutHelpWidth: () => 80 }).helpInformation();
    const order = [
      "apply a plan",
      "Examples:",
      "Usage:",
      "Arguments:",
      "Options:",
      "Every command:",
      "Exit codes:",
    ];
    const found = order.map((title) => text.indexOf(title));
    expect(found).toEqual([...found].sort((a, b) => a - b));
    expect(found).not.toContain(-1);
    expect(text).toContain("  34  drift     drift: rows, schema or triggers are not as planned");
    expect(text).not.toContain("conflict");
    expect(root.helpInformation()).toContain("Lifecycle:");
  });
});

test("docs/json-output.md shows the exit codes as they are, and its example is a document of ours", () => {
  const page = readFileSync(new URL("../../../docs/json-output.md", import.meta.url), "utf8");
  for (const e of EXIT_TABLE) expect(page).toContain(`| ${e.code} | \`${e.name}\` | ${e.meaning} |`);
  const example: unknown = JSON.parse(/```json\n(.*?)```/s.exec(page)?.[1] ?? "");
  const error = new RefusedError({ code: "ERR_DRIFT_ROWS", message: "x", why: "x", state: "x", next: [] });
  const ours = failureEnvelope("apply", error);
  expect(example).toMatchObject({ schema: ours.schema, ok: ours.ok, exit: ours.exit, target_changed: "no" });
  expect(Object.keys(example ?? {})).toEqual(Object.keys(ours));
});

test("the list of commands says what each command says of itself", async () => {
  for (const entry of COMMANDS) {
    const program = new Command("holdpoint");
    (await entry.load())(program, () => Promise.resolve(), null);
    const command = program.commands.find((c) => c.name() === entry.name);
    const args = command?.registeredArguments.map((a) => {
      const name = a.variadic ? `${a.name()}...` : a.name();
      return a.required ? `<${name}>` : `[${name}]`;
    });
    expect([entry.name, args?.join(" "), command?.summary(), command?.helpGroup()]).toEqual([
      entry.name,
      entry.args,
      entry.summary,
      `${entry.group}:`,
    ]);
  }
});
