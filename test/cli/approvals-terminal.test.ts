/** A person approves at a real pseudo-terminal, through the real binary: with a passphrase key, and with an agent's. */
import { readFileSync } from "node:fs";
import { spawn } from "@lydell/node-pty";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { BIN, makeKey, makeProject, type TestProject } from "../support/project.js";
import { startAgent } from "../support/ssh.js";

const PASSPHRASE = "correct horse";

let project: TestProject;
beforeEach(() => {
  project = makeProject({ pin: false });
  makeKey(project.path("keys/kim"), "kim", PASSPHRASE);
  const [, blob = ""] = /(ssh-ed25519 \S+)/.exec(project.read("keys/kim.pub")) ?? [];
  const line = `kim namespaces="holdpoint-plan,holdpoint-approval,holdpoint-breakglass" ${blob}\n`;
  project.write("people/allowed_signers", project.read("people/allowed_signers") + line);
  expect(project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).status).toBe(0);
});
afterEach(() => project.close());

/** A prompt, and what a person types when it stands on the screen. */
type Answer = readonly [prompt: RegExp, typed: string];

/** Answers whatever is asked until the program ends; each prompt is answered where it appears after the last one. */
function converse(
  args: readonly string[],
  answers: readonly Answer[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly screen: string; readonly status: number }> {
  const pty = spawn(process.execPath, [BIN, ...args, "--accessible"], {
    cols: 160,
    rows: 50,
    cwd: project.dir,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: project.path("home"),
      TERM: "xterm",
      TZ: "UTC",
      LANG: "C.UTF-8",
      ...env,
    },
  });
  let screen = "";
  let answered = 0;
  pty.onData((data) => {
    screen += data;
    const fresh = screen.slice(answered);
    const due = answers.find(([prompt]) => prompt.test(fresh));
    if (due === undefined) return;
    answered = screen.length;
    pty.write(`${due[1]}\r`);
  });
  return new Promise((done) => pty.onExit(({ exitCode }) => done({ screen, status: exitCode })));
}

/** What a careful approver of one updated order types. */
const APPROVING: readonly Answer[] = [
  [/About how many rows[\s\S]*>/, "0"],
  [/Decide:[^\n]*>/, "sign"],
  [/How many rows[^\n]*>/, "1"],
  [/Type the name of the target[^\n]*>/, "shop-prod"],
  [/Enter passphrase[^\n]*:/i, PASSPHRASE],
];

function planned(): string {
  return project.plan("UPDATE orders SET note = 'seen' WHERE id = 1");
}

describe("approve at a terminal", () => {
  test("with a passphrase key: the passphrase is asked for by ssh-keygen, and the token opens the plan", async () => {
    const plan = planned();
    const { screen, status } = await converse(
      ["approve", plan, "--key", "keys/kim", "--out", "kim.hpa"],
      APPROVING,
    );
    expect(screen).toContain("Signed");
    expect(screen).not.toContain(PASSPHRASE);
    expect(status).toBe(0);
    expect(readFileSync(project.path("kim.hpa"), "utf8")).toMatch(/^hpa1\./);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).ok).toBe(true);
  });

  test("with a wrong passphrase nothing is signed (32)", async () => {
    const plan = planned();
    const wrong = APPROVING.map(([prompt, typed]): Answer => [prompt, typed === PASSPHRASE ? "no" : typed]);
    const { status } = await converse(["approve", plan, "--key", "keys/kim"], wrong);
    expect(status).toBe(32);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(21);
  });

  test("with an agent key and no --key", async () => {
    const agent = await startAgent(project.dir);
    try {
      agent.add(project.path("keys/ravi"));
      const plan = planned();
      const env = { SSH_AUTH_SOCK: agent.socket };
      const { screen, status } = await converse(["approve", plan], APPROVING, env);
      expect(screen).toContain("Signed");
      expect(status).toBe(0);
      expect(project.json(["apply", plan, "--confirm", "shop-prod"]).result).toMatchObject({
        approvers: ["ravi"],
      });
    } finally {
      agent.stop();
    }
  });

  test("a wrong answer twice ends without a signature", async () => {
    const plan = planned();
    const wrong = APPROVING.map(([prompt, typed]): Answer => [prompt, typed === "1" ? "7" : typed]);
    const { screen, status } = await converse(["approve", plan, "--key", "keys/ravi"], wrong);
    expect(status).not.toBe(0);
    expect(screen).toContain("without a signature");
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(21);
  });

  test("Ctrl-C ends with 130 and signs nothing", async () => {
    const plan = planned();
    const { status } = await converse(
      ["approve", plan, "--key", "keys/ravi"],
      [
        [/About how many rows[\s\S]*>/, "0"],
        [/Decide:[^\n]*>/, "\u0003"],
      ],
    );
    expect(status).toBe(130);
    expect(project.json(["apply", plan, "--confirm", "shop-prod"]).exit.code).toBe(21);
  });

  test("a break-glass run is reviewed by another person", async () => {
    const plan = planned();
    const glass = [
      "--break-glass",
      "--incident",
      "INC-7",
      "--reason",
      "checkout is down",
      "--key",
      "keys/dana",
    ];
    const run = String(project.json(["apply", plan, "--confirm", "shop-prod", ...glass]).result["run"]);
    const { screen, status } = await converse(
      ["approve", "--review", run, "--key", "keys/ravi"],
      [
        [/What did you find\?[^\n]*>/, "looked, fine"],
        [/Type the run's id[^\n]*>/, run],
      ],
    );
    expect(screen).toContain("INC-7: checkout is down");
    expect(screen).toContain("Its debt is closed");
    expect(status).toBe(0);
  });
});
