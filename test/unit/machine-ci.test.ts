/** What CI and git say of who is behind a run; what they do not say is named, never passed over. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { ciFacts } from "../../src/machine/ci.js";

const GITHUB = { CI: "true", GITHUB_ACTIONS: "true", GITHUB_ACTOR: "lee", GITHUB_TRIGGERING_ACTOR: "kim" };

let folder: string;
let repository: string;
const git = (cwd: string, ...args: readonly string[]): string =>
  execFileSync("git", [...args], { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();

function commit(name: string, author: string, committer = author): string {
  writeFileSync(join(repository, name), author);
  git(repository, "add", name);
  const as = ["-c", `user.name=x`, "-c", `user.email=${committer}`];
  git(repository, ...as, "commit", "-q", "-m", name, `--author=x <${author}>`);
  return git(repository, "rev-parse", "HEAD");
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "hp-ci-"));
  repository = join(folder, "repository");
  execFileSync("git", ["init", "-q", repository]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("who is behind a run", () => {
  let first: string;
  let last: string;
  beforeAll(() => {
    commit("job.sql", "old@shop.example");
    first = commit("other.sql", "before@shop.example");
    commit("more.sql", "Dana@Shop.example", "robot@shop.example");
    last = commit("last.sql", "ravi@shop.example");
  });

  const facts = (env: Record<string, string>, since: string | null, cwd = repository) =>
    ciFacts({ env, cwd, since, path: "job.sql" });

  test("outside of CI nothing is claimed", async () => {
    await expect(facts({}, first)).resolves.toBeNull();
    // It only says that nobody is at a terminal, not which pipeline could name who set it going.
    await expect(facts({ CI: "true" }, first)).resolves.toBeNull();
  });

  test("actors, and authors and committers since a commit, without those before", async () => {
    await expect(facts(GITHUB, first)).resolves.toEqual({
      commit: last,
      people: ["dana@shop.example", "github:kim", "github:lee", "ravi@shop.example", "robot@shop.example"],
      missing: [],
    });
  });

  test("of the very commit that was applied last nobody wrote anything since: its actors alone", async () => {
    expect(await facts(GITHUB, last)).toEqual({
      commit: last,
      people: ["github:kim", "github:lee"],
      missing: [],
    });
  });

  test("without an applied plan: the last commit, and those that touched the job's file", async () => {
    const found = await facts(GITHUB, null);
    expect(found?.people).toEqual(["github:kim", "github:lee", "old@shop.example", "ravi@shop.example"]);
  });

  test.each([
    ["an actor that is not named", { ...GITHUB, GITHUB_TRIGGERING_ACTOR: "" }, "GITHUB_TRIGGERING_ACTOR"],
    ["GitLab's user", { CI: "true", GITLAB_CI: "true" }, "GITLAB_USER_LOGIN"],
  ])("is told as missing: %s", async (_, env, missing) => {
    expect((await facts(env, first))?.missing).toEqual([missing]);
  });

  test("a commit that is not in the history is missing", async () => {
    const found = await facts(GITHUB, "1".repeat(40));
    expect(found?.missing).toEqual([`the commits since ${"1".repeat(12)}`]);
  });

  test("a shallow clone and a folder without git tell no commits", async () => {
    const shallow = join(folder, "shallow");
    execFileSync("git", ["clone", "-q", "--depth", "1", `file://${repository}`, shallow]);
    expect((await facts(GITHUB, null, shallow))?.missing).toEqual(["the commits"]);
    expect((await facts(GITHUB, null, folder))?.missing).toEqual(["the commits"]);
  });
});
