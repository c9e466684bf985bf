/**
 * The two-person rule from outside: each test is an attack or a slip with its name, through the real binary. What
 * `road.test.ts` holds already (a second key of the requester, altered bytes, a missing ledger, a job that touches
 * the spent marks) is not repeated here.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parsePlanStatement, planStatementBytes } from "../../src/approval/plan-statement-codec.js";
import { dearmor } from "../../src/approval/sshsig.js";
import { runBounded } from "../../src/machine/child.js";
import { readPlanFile, writePlanFile } from "../../src/storage/plan-file.js";
import { createChanges } from "../../src/storage/changes.js";
import {
  copyDatabase,
  type Document,
  makeKey,
  makeProject,
  sign,
  type TestProject,
} from "../support/project.js";
import { shifted } from "../support/shifted-clock.js";

const note = (id: number): string => `UPDATE orders SET note = 'seen' WHERE id = ${id}`;
const apply = (project: TestProject, plan: string, more: readonly string[] = []): Document =>
  project.json(["apply", plan, "--confirm", "shop-prod", ...more]);

/** Runs `act` and holds that no row of the target changed. */
function unchanged<T>(project: TestProject, act: () => T): T {
  const before = project.dump();
  const result = act();
  expect(project.dump()).toBe(before);
  return result;
}

/** A project whose policy asks for `people`; pinned after `change` edited its files. */
function strict(people: number, change: (project: TestProject) => void = () => undefined): TestProject {
  const project = makeProject({ people: ["dana", "ravi", "lee"], pin: false });
  const file = "policies/production.yaml";
  project.write(file, project.read(file).replace("require: { people: 1 }", `require: { people: ${people} }`));
  change(project);
  const pinned = project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
  if (pinned.status !== 0) throw new Error(pinned.stderr);
  return project;
}

/** Signs `file` as each person and gives the flags that name the signatures. */
let signed = 0;
function signatures(
  project: TestProject,
  namespace: string,
  file: string,
  people: readonly string[],
): string[] {
  return people.flatMap((person) => {
    signed += 1;
    const copy = `${file}.${person}.${signed}`;
    copyFileSync(project.path(file), project.path(copy));
    sign(project.path(`keys/${person}`), namespace, project.path(copy));
    return ["--signature", `${copy}.sig`];
  });
}

/** The line of allowed_signers that gives a person one more key. */
function moreKey(project: TestProject, person: string, key: string, options = ""): string {
  const [, blob = ""] = /(ssh-ed25519 \S+)/.exec(project.read(`keys/${key}.pub`)) ?? [];
  const spaces = `namespaces="holdpoint-plan,holdpoint-approval,holdpoint-trust,holdpoint-pin"`;
  return `${person} ${options}${spaces} ${blob}\n`;
}

describe("where two people must approve", () => {
  let project: TestProject;
  beforeAll(() => {
    project = strict(2, (p) => {
      makeKey(p.path("keys/ravi2"), "ravi2");
      makeKey(p.path("keys/ca"), "ca");
      const signers = "people/allowed_signers";
      p.write(
        signers,
        p.read(signers) + moreKey(p, "ravi", "ravi2") + moreKey(p, "ravi", "ca", "cert-authority,"),
      );
      p.write("people/groups.yaml", "groups:\n  admin: [dana]\n");
    });
  });
  afterAll(() => project.close());

  const approveWith = (plan: string, person: string, key: string): Document => {
    const file = `with-${key.replaceAll(/\W/g, "-")}-${plan}.txt`;
    expect(project.run(["approve", plan, "--prepare", file, "--as", person]).status).toBe(0);
    sign(project.path(`keys/${key}`), "holdpoint-approval", project.path(file));
    return project.json(["approve", plan, "--prepared", file, "--signature", `${file}.sig`]);
  };

  test("one person with two keys is one person", () => {
    const plan = project.plan(note(1));
    expect(approveWith(plan, "ravi", "ravi").ok).toBe(true);
    expect(approveWith(plan, "ravi", "ravi2").ok).toBe(true);
    const ended = unchanged(project, () => apply(project, plan));
    expect(ended).toMatchObject({ exit: { code: 21 }, error: { code: "ERR_APPROVAL_NEEDED" } });
    expect(approveWith(plan, "lee", "lee").ok).toBe(true);
    expect(apply(project, plan).ok).toBe(true);
  });

  test("one key twice is one person", () => {
    const plan = project.plan(note(2));
    const [first, second] = [project.approve(plan, "ravi"), project.approve(plan, "ravi")];
    project.write("both.hpa", `${first}\n${second}\n${first}\n`);
    const ended = unchanged(project, () => apply(project, plan, ["--approval", "both.hpa"]));
    expect(ended.exit.code).toBe(21);
  });

  test("an administrator is no exception: their own plan needs others", () => {
    const plan = project.plan(note(3));
    const ended = project.json(["approve", plan, "--prepare", "admin.txt", "--as", "dana"]);
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_SELF" } });
  });

  test("a certificate with another principal counts for nobody", () => {
    const plan = project.plan(note(4));
    makeKey(project.path("keys/guest"), "guest");
    const certify = [
      "-q",
      "-s",
      project.path("keys/ca"),
      "-I",
      "x",
      "-n",
      "lee",
      project.path("keys/guest.pub"),
    ];
    expect(spawnSync("ssh-keygen", certify).status).toBe(0);
    expect(project.run(["approve", plan, "--prepare", "cert.txt", "--as", "lee"]).status).toBe(0);
    sign(project.path("keys/guest-cert.pub"), "holdpoint-approval", project.path("cert.txt"));
    const ended = project.json(["approve", plan, "--prepared", "cert.txt", "--signature", "cert.txt.sig"]);
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_UNKNOWN_KEY" } });
    expect(apply(project, plan).exit.code).toBe(21);
  });

  test("twin plan ids: a plan stored under another one's id is refused with 35", () => {
    const [one, two] = [project.plan(note(5)), project.plan(note(6))];
    project.approve(one, "ravi");
    project.approve(one, "lee");
    const path = (id: string): string => project.path(`.holdpoint/plans/${id}.hpplan`);
    const own = readFileSync(path(one));
    copyFileSync(path(two), path(one));
    expect(unchanged(project, () => apply(project, one)).exit.code).toBe(35);
    writeFileSync(path(one), own);
  });

  test("a plan whose signed decision says allow is judged again, and refused with 35", async () => {
    const id = project.plan(note(7));
    const file = await readPlanFile(project.path(`.holdpoint/plans/${id}.hpplan`), { followLinks: false });
    const bytes = planStatementBytes({ ...parsePlanStatement(file.statement), decision: "allow" });
    writeFileSync(project.path("allow.txt"), bytes);
    sign(project.path("keys/dana"), "holdpoint-plan", project.path("allow.txt"));
    const changes = await createChanges(project.path("allow.db"), { runBounded, removeOnClose: true });
    try {
      await file.loadInto(changes);
      const source = changes.finish();
      const signature = dearmor(project.read("allow.txt.sig"));
      await writePlanFile(project.path("allow.hpplan"), { statement: bytes, signature, source }, "refuse");
      source.close();
    } catch (e) {
      changes.abort();
      throw e;
    }
    const ended = unchanged(project, () => apply(project, "allow.hpplan"));
    expect(ended).toMatchObject({ exit: { code: 35 }, error: { code: "ERR_PLAN_DIFFERS" } });
  });

  test("a group that names nobody is an error, and every gate stays closed", () => {
    const file = "people/groups.yaml";
    const before = project.read(file);
    project.write(file, "groups:\n  dba: []\n");
    const ended = unchanged(project, () => project.json(["plan", "hello", "--on", "shop-prod"]));
    expect(ended).toMatchObject({ exit: { code: 2 }, error: { code: "ERR_PEOPLE_INVALID" } });
    project.write(file, before);
  });
});

test("an empty group in a rule can never be met, and is never a yes (30)", () => {
  const project = strict(1, (p) => {
    const file = "policies/production.yaml";
    p.write(file, p.read(file).replace("require: { people: 1 }", "require: { people: 1, groups: [dba] }"));
  });
  try {
    const plan = project.plan(note(1));
    project.run(["approve", plan, "--prepare", "a.txt", "--as", "ravi"]);
    const ended = unchanged(project, () => apply(project, plan));
    expect(ended).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_TRUST_QUORUM" } });
  } finally {
    project.close();
  }
});

describe("another place", () => {
  test("a token for staging used in production (31), and the same plan bytes on another database (33)", () => {
    const project = makeProject({ pin: false });
    const other = makeProject({ pin: false });
    try {
      copyFileSync(other.database, project.path("stage.db"));
      const config = project.read("holdpoint.yaml");
      const stage =
        "  shop-stage:\n    url: sqlite:stage.db\n    environment: staging\n    foreign_keys: true\n";
      project.write("holdpoint.yaml", config.replace("targets:\n", `targets:\n${stage}`));
      for (const target of ["shop-prod", "shop-stage"]) {
        expect(project.run(["env", "pin", target, "--confirm", target]).status).toBe(0);
      }
      const job = project.write("jobs/note.sql", note(1));
      const staged = project.json([
        "plan",
        job,
        "--on",
        "shop-stage",
        "--key",
        "keys/dana",
        "--out",
        "stage.hpplan",
      ]);
      project.write("stage.hpa", project.approve(String(staged.result["plan"])));
      const plan = project.plan(note(1));
      const ended = unchanged(project, () => apply(project, plan, ["--approval", "stage.hpa"]));
      expect(ended.exit.code).toBe(31);

      project.write(
        "holdpoint.yaml",
        project.read("holdpoint.yaml").replace("sqlite:stage.db", "sqlite:twin.db"),
      );
      copyFileSync(other.database, project.path("twin.db"));
      const elsewhere = project.json(["apply", "stage.hpplan", "--confirm", "shop-stage"]);
      expect(elsewhere.exit.code).toBe(33);
    } finally {
      other.close();
      project.close();
    }
  });

  test("a target put back to before the spend replays nothing (31)", () => {
    const project = makeProject({ journal: "delete" });
    try {
      const plan = project.plan(note(1));
      project.write("token.hpa", project.approve(plan));
      const old = readFileSync(project.database);
      expect(apply(project, plan).ok).toBe(true);
      writeFileSync(project.database, old); // into the same file: identity and place are what was pinned
      const ended = unchanged(project, () => apply(project, plan, ["--approval", "token.hpa"]));
      expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_SPENT" } });
    } finally {
      project.close();
    }
  });
});

describe("the trust bundle", () => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject({ people: ["dana", "ravi", "lee"] });
  });
  afterAll(() => project.close());

  test("a second key added to people before planning is another bundle (30)", () => {
    const file = "people/allowed_signers";
    const before = project.read(file);
    makeKey(project.path("keys/dana2"), "dana2");
    project.write(file, before.replace(/^ravi .*$/m, moreKey(project, "ravi", "dana2").trim()));
    const ended = unchanged(project, () => project.json(["plan", "hello", "--on", "shop-prod"]));
    expect(ended).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_TRUST_BUNDLE" } });
    project.write(file, before);
  });

  test("changes under the quorum of the old bundle, and an approval given before opens nothing any more (30)", () => {
    const plan = project.plan(note(1));
    project.approve(plan);
    const before = project.read("people/allowed_signers");
    makeKey(project.path("keys/eve"), "eve");
    project.write("people/allowed_signers", before + moreKey(project, "eve", "eve"));
    const proposed = project.json(["trust", "propose", "--out", "change.txt"]);
    expect(proposed.result).toMatchObject({ target: "shop-prod", quorum: { people: 2 }, file: "change.txt" });
    expect(String(proposed.result["changes"])).toContain("+ person eve may sign");
    expect(project.read("change.txt")).toContain("\nchange: + person eve may sign\n");

    const accept = (more: readonly string[]): Document =>
      project.json(["trust", "accept", "change.txt", ...more]);
    const refused = (people: readonly string[], namespace = "holdpoint-trust"): void => {
      const ended = accept(signatures(project, namespace, "change.txt", people));
      expect(ended).toMatchObject({
        exit: { code: 30 },
        error: { code: "ERR_TRUST_QUORUM" },
        target_changed: "no",
      });
    };
    refused(["dana"]);
    refused(["dana", "eve"]); // eve is of the new bundle
    refused(["dana", "ravi"], "holdpoint-approval");

    const good = signatures(project, "holdpoint-trust", "change.txt", ["dana", "ravi"]);
    const altered = project.read("change.txt").replace("person eve", "person eva");
    project.write("altered.txt", altered);
    expect(project.json(["trust", "accept", "altered.txt", ...good]).exit.code).toBe(31);
    expect(accept(good)).toMatchObject({ ok: true, result: { signed_by: ["dana", "ravi"] } });

    const ended = unchanged(project, () => apply(project, plan));
    expect(ended).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_TRUST_BUNDLE" } });
    expect(accept(good)).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_STATEMENT_STALE" } });
    expect(project.json(["log", "verify"]).ok).toBe(true);
    const next = project.plan(note(2));
    project.approve(next, "eve");
    expect(apply(project, next).ok).toBe(true);
  });

  test("an old proposal cannot be used again after the way back (31)", () => {
    const file = "people/allowed_signers";
    const before = project.read(file);
    const change = (name: string): readonly string[] => {
      expect(project.run(["trust", "propose", "--out", name]).status).toBe(0);
      const good = signatures(project, "holdpoint-trust", name, ["dana", "ravi"]);
      expect(project.json(["trust", "accept", name, ...good]).error).toBeNull();
      return good;
    };
    project.write(file, before.replace(/^lee .*\n/m, ""));
    const out = change("out.txt");
    project.write(file, before);
    change("back.txt");
    project.write(file, before.replace(/^lee .*\n/m, ""));
    const ended = project.json(["trust", "accept", "out.txt", ...out]);
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_STATEMENT_STALE" } });
    project.write(file, before);
  });

  test("nothing to propose, and a file that is there, end with 2", () => {
    expect(project.json(["trust", "propose", "--out", "same.txt"]).exit.code).toBe(2);
    expect(existsSync(project.path("same.txt"))).toBe(false);
    project.write("torn.txt", "holdpoint statement\nformat: x\n");
    const ended = project.json(["trust", "accept", "torn.txt", "--signature", "torn.txt"]);
    expect(ended).toMatchObject({ exit: { code: 35 }, error: { code: "ERR_STATEMENT_MALFORMED" } });
  });
});

describe("pinning again", () => {
  test("production re-pinned as development takes two people, and leaves the old plans worthless", () => {
    const project = makeProject();
    try {
      const plan = project.plan(note(1));
      project.approve(plan);
      project.write(
        "holdpoint.yaml",
        project.read("holdpoint.yaml").replace("environment: production", "environment: development"),
      );
      expect(project.json(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).exit.code).toBe(33);
      const prepared = project.json(["env", "pin", "shop-prod", "--replace", "--prepare", "pin.txt"]);
      expect(String(prepared.result["changes"])).toContain("production → development (LOWERED)");
      const replace = (more: readonly string[]): Document =>
        project.json(["env", "pin", "shop-prod", "--replace", "--prepared", "pin.txt", ...more]);
      const sigs = (people: readonly string[], ns = "holdpoint-pin"): string[] =>
        signatures(project, ns, "pin.txt", people);
      expect(replace(sigs(["dana"])).error?.code).toBe("ERR_TRUST_QUORUM");
      expect(replace(sigs(["dana", "ravi"], "holdpoint-trust")).error?.code).toBe("ERR_TRUST_QUORUM");
      const done = replace(sigs(["dana", "ravi"]));
      expect(done).toMatchObject({
        ok: true,
        result: { environment: "development", signed_by: ["dana", "ravi"] },
      });
      expect(project.json(["env", "check", "shop-prod"]).result).toMatchObject({ verdict: "development" });
      expect(unchanged(project, () => apply(project, plan)).exit.code).toBe(33);
      expect(replace(sigs(["dana", "ravi"])).exit.code).toBe(31);
    } finally {
      project.close();
    }
  });

  test("a moved file is pinned again by two people; what they signed for another place is refused", () => {
    const project = makeProject();
    try {
      const move = (from: string, to: string): void => {
        copyDatabase(project.path(from), project.path(to));
        const config = project.read("holdpoint.yaml");
        project.write("holdpoint.yaml", config.replace(`sqlite:${from}`, `sqlite:${to}`));
      };
      move("shop.db", "moved.db");
      expect(project.json(["plan", "hello", "--on", "shop-prod"]).exit.code).toBe(33);
      expect(project.run(["env", "pin", "shop-prod", "--replace", "--prepare", "pin.txt"]).status).toBe(0);
      const good = signatures(project, "holdpoint-pin", "pin.txt", ["dana", "ravi"]);
      move("moved.db", "third.db");
      const replace = ["env", "pin", "shop-prod", "--replace", "--prepared", "pin.txt", ...good];
      expect(project.json(replace)).toMatchObject({
        exit: { code: 31 },
        error: { code: "ERR_STATEMENT_STALE" },
      });
      const config = project.read("holdpoint.yaml");
      project.write("holdpoint.yaml", config.replace("sqlite:third.db", "sqlite:moved.db"));
      expect(project.json(replace).error).toBeNull();
      expect(project.json(["plan", "hello", "--on", "shop-prod"]).ok).toBe(true);
      expect(project.json(["log", "verify"]).ok).toBe(true);
    } finally {
      project.close();
    }
  });

  test("--replace without its files, and of a target that was never pinned, end with 2", () => {
    const project = makeProject({ pin: false });
    try {
      expect(project.json(["env", "pin", "shop-prod", "--replace"]).exit.code).toBe(2);
      expect(project.json(["env", "pin", "shop-prod", "--replace", "--prepare", "p.txt"]).exit.code).toBe(2);
    } finally {
      project.close();
    }
  });
});

describe("what people say later", () => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject({ people: ["dana", "ravi", "lee"] });
  });
  afterAll(() => project.close());

  test("an approval taken back opens nothing (31); another one does", () => {
    const plan = project.plan(note(1));
    const token = project.approve(plan);
    project.write("token.hpa", token);
    const mine = (key: string): Document =>
      project.json(["revoke", plan, "--reason", "wrong week", "--key", `keys/${key}`]);
    expect(mine("lee").exit.code).toBe(2); // not lee's to take back
    expect(mine("ravi")).toMatchObject({ ok: true, result: { person: "ravi", revoked: 1, anchored: true } });
    const ended = unchanged(project, () => apply(project, plan, ["--approval", "token.hpa"]));
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_REVOKED" } });
    expect(mine("ravi").exit.code).toBe(2); // nothing left to take back
    project.approve(plan, "lee");
    expect(apply(project, plan).ok).toBe(true);
    expect(mine("ravi")).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_SPENT" } });
  });

  test("a rejection is shown on every later plan of the same effect", () => {
    const plan = project.plan(note(2));
    const words = "paid orders must stay";
    expect(project.json(["reject", plan, "--reason", words, "--key", "keys/ravi"]).ok).toBe(true);
    const file = project.write("jobs/again.sql", note(2));
    const again = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]);
    expect(String(again.result["notices"])).toContain(`rejected by ravi as ${plan}`);
    expect(String(again.result["notices"])).toContain(words);
    expect(project.run(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]).stdout).toContain(
      "rejected by ravi",
    );
    const other = project.json([
      "plan",
      project.write("jobs/o.sql", note(3)),
      "--on",
      "shop-prod",
      "--key",
      "keys/dana",
    ]);
    expect(other.result["notices"]).toEqual([]);
  });

  test("a partial undo is not what a cover allows: it waits for a person (21)", () => {
    const plan = project.plan(
      "UPDATE orders SET note = 'x' WHERE id = 9; UPDATE customers SET name = 'x' WHERE id = 9",
    );
    project.approve(plan, "ravi", ["--cover-undo", "2d"]);
    const run = String(apply(project, plan).result["run"]);
    const ended = unchanged(project, () =>
      project.json(["undo", run, "--table", "orders", "--key", "keys/dana", "--confirm", "shop-prod"]),
    );
    expect(ended.exit.code).toBe(21);
  });

  test("--replan signs only what the approver's own rehearsal finds too", () => {
    const file = project.write("jobs/replan.sql", note(4));
    const made = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"]);
    const plan = String(made.result["plan"]);
    const prepare = (out: string): Document =>
      project.json(["approve", plan, "--replan", "--prepare", out, "--as", "ravi"]);
    expect(prepare("same.txt").ok).toBe(true);
    project.write("jobs/replan.sql", note(5));
    expect(prepare("file.txt")).toMatchObject({ exit: { code: 35 }, error: { code: "ERR_PLAN_DIFFERS" } });
    project.write("jobs/replan.sql", note(4));
    project.raw("UPDATE orders SET note = 'seen' WHERE id = 4");
    expect(prepare("rows.txt")).toMatchObject({ exit: { code: 35 }, error: { code: "ERR_PLAN_DIFFERS" } });
    expect(existsSync(project.path("rows.txt"))).toBe(false);
  });
});

describe("the clock", () => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject();
  });
  afterAll(() => project.close());

  test("moved back makes nothing valid again (31), and records nothing", () => {
    const plan = project.plan(note(1));
    project.approve(plan);
    const before = project.json(["log", "verify"]).result["entries"];
    for (const command of [
      ["plan", "hello", "--on", "shop-prod"],
      ["approve", plan, "--prepare", "late.txt", "--as", "ravi"],
      ["apply", plan, "--confirm", "shop-prod"],
    ]) {
      const ended = unchanged(project, () => project.json(command, shifted(project, -3600)));
      expect({ command, code: ended.error?.code }).toEqual({ command, code: "ERR_APPROVAL_CLOCK" });
      expect(ended.exit.code).toBe(31);
    }
    expect(project.json(["log", "verify"]).result["entries"]).toBe(before);
  });

  test("within the skew the latest mark counts, not the host's clock", () => {
    const plan = project.plan(note(2));
    project.approve(plan);
    expect(project.json(["apply", plan, "--dry-run"], shifted(project, -120)).ok).toBe(true);
  });

  test("moved far forward is refused (31), and records nothing", () => {
    const before = project.json(["log", "verify"]).result["entries"];
    const ended = project.json(["plan", "hello", "--on", "shop-prod"], shifted(project, 5 * 365 * 86_400));
    expect(ended).toMatchObject({ exit: { code: 31 }, error: { code: "ERR_APPROVAL_CLOCK" } });
    expect(project.json(["log", "verify"]).result["entries"]).toBe(before);
    expect(project.json(["plan", "hello", "--on", "shop-prod"]).ok).toBe(true);
  });
});

describe("a pipeline", () => {
  let project: TestProject;
  const git = (...args: readonly string[]): void => {
    const done = spawnSync("git", ["-c", "user.name=x", "-c", "user.email=ravi@shop.example", ...args], {
      cwd: project.dir,
    });
    if (done.status !== 0) throw new Error(String(done.stderr));
  };
  const env = {
    CI: "true",
    GITHUB_ACTIONS: "true",
    GITHUB_ACTOR: "octo-lee",
    GITHUB_TRIGGERING_ACTOR: "octo-lee",
  };
  const planned = (sql: string, more: Record<string, string | undefined> = {}): string => {
    const file = project.write("jobs/ci.sql", sql);
    git("add", "-f", file);
    git("commit", "-q", "-m", "job");
    const all = Object.entries({ ...env, ...more }).flatMap(([k, v]) =>
      v === undefined ? [] : [[k, v] as const],
    );
    const args = ["plan", file, "--on", "shop-prod", "--key", "keys/bot"];
    const made = project.json(args, { env: Object.fromEntries(all) });
    expect(made.error).toBeNull();
    return String(made.result["plan"]);
  };
  beforeAll(() => {
    project = makeProject({ people: ["bot", "dana", "ravi", "lee", "kim"], pin: false });
    project.write(
      "people/groups.yaml",
      `groups: {}\nci:\n  accounts: [bot]\n  people: { "github:octo-lee": lee, "ravi@shop.example": ravi }\n`,
    );
    spawnSync("git", ["init", "-q"], { cwd: project.dir });
    expect(project.run(["env", "pin", "shop-prod", "--confirm", "shop-prod"]).status).toBe(0);
  });
  afterAll(() => project.close());

  test("an approver who is a commit's author, and the actor of CI, are requesters (31)", () => {
    const plan = planned(note(1));
    for (const person of ["ravi", "lee", "bot"]) {
      const ended = project.json(["approve", plan, "--prepare", `${person}.txt`, "--as", person]);
      expect({ person, code: ended.error?.code }).toEqual({ person, code: "ERR_APPROVAL_SELF" });
    }
    project.approve(plan, "dana");
    expect(apply(project, plan).ok).toBe(true);
  });

  test("a commit since the job's last applied plan counts, one before it does not", () => {
    const old = planned(note(2));
    project.approve(old, "dana");
    expect(apply(project, old).ok).toBe(true);
    const file = project.write("jobs/ci.sql", note(3));
    spawnSync("git", ["add", "-f", file], { cwd: project.dir });
    const mail = ["-c", "user.name=x", "-c", "user.email=kim@shop.example"];
    spawnSync("git", [...mail, "commit", "-q", "-m", "by nobody on the list"], { cwd: project.dir });
    const made = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/bot"], { env });
    expect(String(made.result["notices"])).toContain("one approver more is needed");
    const plan = String(made.result["plan"]);
    project.approve(plan, "ravi"); // ravi's commits are older than the last applied plan
    expect(unchanged(project, () => apply(project, plan)).exit.code).toBe(21);
    project.approve(plan, "dana");
    expect(apply(project, plan).ok).toBe(true);
  });

  test("an actor that CI does not name costs one more approver (21)", () => {
    const plan = planned(note(4), { GITHUB_TRIGGERING_ACTOR: undefined });
    project.approve(plan, "dana");
    expect(unchanged(project, () => apply(project, plan)).exit.code).toBe(21);
    project.approve(plan, "kim");
    expect(apply(project, plan).ok).toBe(true);
  });
});

describe("break-glass", () => {
  let project: TestProject;
  const words = ["--break-glass", "--incident", "INC-7", "--reason", "checkout is down"];
  beforeAll(() => {
    project = makeProject({ people: ["dana", "ravi", "lee"] });
  });
  afterAll(() => project.close());

  test("waives the quorum, and nothing else", () => {
    const plan = project.plan(note(1));
    const bare = unchanged(project, () => apply(project, plan, ["--break-glass", "--key", "keys/dana"]));
    expect(bare.exit.code).toBe(2);
    makeKey(project.path("keys/eve"), "eve");
    expect(apply(project, plan, [...words, "--key", "keys/eve"]).exit.code).toBe(32);
    const done = apply(project, plan, [...words, "--key", "keys/dana"]);
    expect(done).toMatchObject({ ok: true, target_changed: "yes", result: { approvers: [] } });
    expect(project.run(["log"]).stdout).toContain("BREAK-GLASS");
    expect(apply(project, plan, [...words, "--key", "keys/dana"]).error?.code).toBe("ERR_APPROVAL_SPENT");

    const rejected = project.plan(note(2));
    project.run(["reject", rejected, "--reason", "no", "--key", "keys/ravi"]);
    const no = unchanged(project, () => apply(project, rejected, [...words, "--key", "keys/dana"]));
    expect(no.error?.code).toBe("ERR_APPROVAL_REJECTED");
    const moved = project.plan(note(3));
    project.raw("UPDATE orders SET note = 'other' WHERE id = 3");
    expect(apply(project, moved, [...words, "--key", "keys/dana"]).exit.code).toBe(34);
    project.raw("UPDATE orders SET note = NULL WHERE id = 3");
    const denied = project.write("jobs/all.sql", "DELETE FROM orders");
    const plans = project.json(["plan", denied, "--on", "shop-prod", "--key", "keys/dana"]);
    const deny = apply(project, String(plans.result["plan"]), [...words, "--key", "keys/dana"]);
    expect(deny).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_POLICY_DENIED" } });
  });

  test("its signature is no approval, and an approval's is no break-glass", () => {
    const plan = project.plan(note(4));
    const token = project.approve(plan, "ravi");
    expect(token).toMatch(/^hpa1\./);
    const other = project.plan(note(5));
    // Signed and recorded, then stopped by drift: what it leaves in the ledger opens nothing without the flag.
    project.raw("UPDATE orders SET note = 'other' WHERE id = 5");
    expect(apply(project, other, [...words, "--key", "keys/dana"]).exit.code).toBe(34);
    project.raw("UPDATE orders SET note = NULL WHERE id = 5");
    expect(unchanged(project, () => apply(project, other)).exit.code).toBe(21);
  });

  test("its debt blocks jobs after a day, never an undo, until another person has reviewed it", () => {
    const run = String(
      project
        .rows("SELECT subject FROM holdpoint_notes WHERE kind = 'debt'")
        .map((r) => Object.values(r as object)[0])[0],
    );
    expect(project.json(["plan", "hello", "--on", "shop-prod"]).ok).toBe(true);
    const late = shifted(project, 25 * 3600);
    const file = project.write("jobs/late.sql", note(6));
    const blocked = project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"], late);
    expect(blocked).toMatchObject({ exit: { code: 30 }, error: { code: "ERR_DEBT_OPEN" } });
    const undo = project.json(["undo", run, "--key", "keys/dana", "--confirm", "shop-prod"], late);
    expect(undo.exit.code).toBe(21);
    expect(project.json(["env", "check", "shop-prod"])).toMatchObject({
      result: { debts: [{ run, by: "dana" }] },
      warnings: [expect.stringContaining("--review")],
    });

    const review = (file: string, person: string): Document =>
      project.json(
        ["approve", "--review", run, "--prepare", file, "--as", person, "--reason", "looked, fine"],
        late,
      );
    expect(review("own.txt", "dana")).toMatchObject({
      exit: { code: 31 },
      error: { code: "ERR_APPROVAL_SELF" },
    });
    expect(review("ravi.txt", "ravi").ok).toBe(true);
    const takeIn = (file: string, signature: string): Document =>
      project.json(["approve", "--review", run, "--prepared", file, "--signature", signature], late);
    const [, byDana = ""] = signatures(project, "holdpoint-approval", "ravi.txt", ["dana"]);
    expect(takeIn("ravi.txt", byDana)).toMatchObject({ exit: { code: 31 } });
    const [, byRavi = ""] = signatures(project, "holdpoint-approval", "ravi.txt", ["ravi"]);
    expect(takeIn("ravi.txt", byRavi)).toMatchObject({
      ok: true,
      result: { person: "ravi", broken_by: "dana" },
    });
    expect(takeIn("ravi.txt", byRavi).exit.code).toBe(2);
    expect(project.json(["plan", file, "--on", "shop-prod", "--key", "keys/dana"], late).ok).toBe(true);
  });
});

describe("key", () => {
  let project: TestProject;
  beforeAll(() => {
    project = makeProject({ pin: false });
    makeKey(project.path("keys/eve"), "eve");
    makeKey(project.path("keys/locked"), "locked", "a passphrase");
    makeKey(project.path("keys/old"), "old");
    makeKey(project.path("keys/git"), "git");
    const blob = (key: string): string =>
      /(ssh-ed25519 \S+)/.exec(project.read(`keys/${key}.pub`))?.[1] ?? "";
    project.write(
      "people/allowed_signers",
      project.read("people/allowed_signers") +
        `kim namespaces="holdpoint-approval" ${blob("locked")}\n` +
        `old namespaces="holdpoint-approval",valid-before="20200101Z" ${blob("old")}\n` +
        `git namespaces="holdpoint-plan" ${blob("git")}\n`,
    );
  });
  afterAll(() => project.close());

  test("list tells people's keys and those in reach, and signs nothing", () => {
    const listed = project.json(["key", "list"]);
    expect(listed.result).toMatchObject({
      in_reach: [],
      problems: [expect.stringContaining("SSH_AUTH_SOCK"), expect.stringContaining(".ssh")],
    });
    expect(project.run(["key", "list"]).stdout).toContain("ravi");
  });

  test.each([
    ["a good key", "ravi", 0, null],
    ["a stranger's key", "eve", 32, "ERR_KEY_UNKNOWN"],
    ["a key whose time is over", "old", 31, "ERR_APPROVAL_KEY_EXPIRED"],
    ["a key for another purpose", "git", 31, "ERR_APPROVAL_NAMESPACE"],
    ["a key that will not sign without its passphrase", "locked", 32, "ERR_KEY_REFUSED"],
    ["no such file", "nobody", 32, "ERR_KEY_MISSING"],
  ])("check tells %s", (_, key, exit, code) => {
    const checked = project.json(["key", "check", "--key", `keys/${key}`]);
    expect({ exit: checked.exit.code, code: checked.error?.code ?? null }).toEqual({ exit, code });
  });

  test("check without --key names what was tried (32)", () => {
    expect(project.json(["key", "check"])).toMatchObject({
      exit: { code: 32 },
      error: { code: "ERR_KEY_MISSING" },
    });
  });
});

test("50 processes race to spend one token: exactly one wins, the ledger verifies", async () => {
  const project = makeProject();
  try {
    const plan = project.plan(note(1));
    project.approve(plan);
    const racers = Array.from({ length: 50 }, () => project.start(["apply", plan, "--confirm", "shop-prod"]));
    const ended = await Promise.all(racers);
    const statuses = ended.map((e) => e.status);
    expect(statuses.filter((s) => s === 0)).toHaveLength(1);
    expect(statuses.filter((s) => s !== 0 && s !== 31 && s !== 38)).toEqual([]);
    for (const { status, stderr } of ended) if (status !== 0) expect(stderr).toContain("Nothing was written");
    expect(project.rows("SELECT count(*) AS n FROM holdpoint_spent")).toEqual([{ n: 1 }]);
    expect(project.rows("SELECT note FROM orders WHERE id = 1")).toEqual([{ note: "seen" }]);
    expect(project.json(["log", "verify"]).ok).toBe(true);
    expect(project.json(["log"]).ok).toBe(true);
  } finally {
    project.close();
  }
}, 180_000);
