/** What this machine says: shown, never strong, never a secret. */
import { describe, expect, test } from "@jest/globals";
import { callerKind, machineEvidence } from "../../src/machine/evidence.js";

const detailOf = (env: Record<string, string>, source: string): string | undefined =>
  machineEvidence(env, "/work").find((e) => e.source === source)?.detail;

test("everything is of this machine, without strength, and in a fixed order", () => {
  const found = machineEvidence(
    { CI: "true", NODE_ENV: "development", AWS_PROFILE: "prod-admin" },
    "/srv/shop",
    "main",
  );
  expect(found.map((e) => [e.source, e.detail, e.says, e.side, e.strength, e.state])).toEqual([
    ["NODE_ENV", "development", "development", "machine", "none", "informs"],
    ["AWS_PROFILE", "prod-admin", "production", "machine", "none", "informs"],
    ["CI", "true", null, "machine", "none", "informs"],
    ["working directory", "/srv/shop", null, "machine", "none", "informs"],
    ["git branch", "main", null, "machine", "none", "informs"],
  ]);
});

test.each([
  ["production", "production"],
  ["PROD", "production"],
  ["eu-prod-1", "production"],
  ["stage", "staging"],
  ["preprod", "staging"],
  ["test", "development"],
  ["dev-from-prod", "production"],
  ["product", null],
  ["qa7", null],
])("APP_ENV=%s speaks for %s", (value, says) => {
  expect(machineEvidence({ APP_ENV: value }, "/work")[0]?.says).toBe(says);
});

test("unset and blank variables are no evidence", () => {
  expect(machineEvidence({ NODE_ENV: "", RAILS_ENV: "  " }, "/work").map((e) => e.source)).toEqual([
    "working directory",
  ]);
});

describe("secrets", () => {
  const SECRET = "hunter2hunter2";

  test.each([
    [
      "DATABASE_URL",
      `postgres://app:${SECRET}@db.prod.example:5432/shop?password=${SECRET}`,
      "db.prod.example/shop",
    ],
    ["DATABASE_URL", `postgres://app:${SECRET}@`, "set, value not shown"],
    ["DATABASE_URL", `host=db password=${SECRET}`, "set, value not shown"],
    ["DATABASE_URL", `mailto:${SECRET}@db`, "set, value not shown"],
    ["REDIS_URL", `redis://:${SECRET}@cache.prod.example/0`, "cache.prod.example/0"],
    ["DOCKER_HOST", `tcp://user:${SECRET}@docker.example`, "set, value not shown"],
    ["AWS_PROFILE", `AKIA${SECRET.toUpperCase()}`, "set, value not shown"],
    ["AWS_PROFILE", `token=${SECRET}`, "set, value not shown"],
    ["ENV", "a8f5f167f44f4964e6c998dee827110c", "set, value not shown"],
    ["JENKINS_URL", `https://ci:${SECRET}@jenkins.example/`, "set, value not shown"],
  ])("%s=%s shows %s", (name, value, shown) => {
    const all = machineEvidence({ [name]: value }, "/work");
    expect(JSON.stringify(all)).not.toContain(SECRET);
    expect(detailOf({ [name]: value }, name)).toBe(shown);
  });

  test("variables that are not listed are never read", () => {
    const seen: string[] = [];
    const env = new Proxy<Record<string, string>>({}, { get: (_, name) => void seen.push(String(name)) });
    machineEvidence(env, "/work");
    expect(seen.filter((n) => /SECRET|TOKEN|PASSWORD|ACCESS_KEY/.test(n))).toEqual([]);
  });
});

test("control characters and long values are defused", () => {
  expect(detailOf({ APP_ENV: "prod\u001b[2J\u202e" }, "APP_ENV")).toBe("prod?[2J?");
  expect(detailOf({ APP_ENV: "x ".repeat(100) }, "APP_ENV")).toHaveLength(60);
});

test.each([
  [{}, "person"],
  [{ CI: "true" }, "ci"],
  [{ CI: "false" }, "person"],
  [{ GITHUB_ACTIONS: "true" }, "ci"],
  [{ AI_AGENT: "1" }, "agent"],
  [{ AGENT: "x", CI: "true" }, "agent"],
  [{ AGENT: "0" }, "person"],
])("%j asks as %s", (env, kind) => {
  expect(callerKind(env)).toBe(kind);
});
