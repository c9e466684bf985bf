/**
 * Who is behind a pipeline's run: the actor that CI names, and the authors and committers of what it runs. All of it
 * is claimed by the machine that plans, so it may only ever make more people requesters (`approval/requesters.ts`).
 */
import { execFile } from "node:child_process";
import { messageOf } from "../base/errors.js";
import { callerKind } from "./evidence.js";

type Variables = Readonly<Record<string, string | undefined>>;

/** What CI and git tell. */
export interface CiFacts {
  /** The commit that is checked out; null where git does not say. */
  readonly commit: string | null;
  /** `github:octocat`, `dana@shop.example` …, without doubles, sorted. */
  readonly people: readonly string[];
  /** What should have been told and was not. */
  readonly missing: readonly string[];
}

/** Each CI's name, its mark, and its variables for who set the run going; all of a list are wanted. */
const PROVIDERS: readonly {
  readonly name: string;
  readonly mark: string;
  readonly actors: readonly string[];
}[] = [
  { name: "github", mark: "GITHUB_ACTIONS", actors: ["GITHUB_ACTOR", "GITHUB_TRIGGERING_ACTOR"] },
  { name: "gitlab", mark: "GITLAB_CI", actors: ["GITLAB_USER_LOGIN"] },
  { name: "buildkite", mark: "BUILDKITE", actors: ["BUILDKITE_BUILD_CREATOR_EMAIL"] },
  { name: "circleci", mark: "CIRCLECI", actors: ["CIRCLE_USERNAME"] },
  { name: "azure", mark: "TF_BUILD", actors: ["BUILD_REQUESTEDFOREMAIL"] },
  { name: "drone", mark: "DRONE", actors: ["DRONE_BUILD_TRIGGER"] },
];

/** More people than this in one range name nobody: the range is wrong, or nobody is left to approve. */
const MOST_PEOPLE = 500;

/**
 * What is known of who asked; null outside of the pipelines that say who set them going.
 * @param args.since the commit of the job's last applied plan; null where there is none. Then the commit that is
 *   checked out and those that touched `path` are looked at.
 */
export async function ciFacts(args: {
  readonly env: Variables;
  readonly cwd: string;
  readonly since: string | null;
  readonly path: string | null;
}): Promise<CiFacts | null> {
  const provider = PROVIDERS.find((p) => isSet(args.env[p.mark]));
  // `CI=true` alone says that nobody is at a terminal, and names no pipeline that could have an actor.
  if (provider === undefined || callerKind(args.env) !== "ci") return null;
  const actors = actorsOf(provider, args.env);
  const commit = (await git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], args.cwd)).trim();
  const committed = commit === "" ? null : await committedBy({ ...args, commit });
  const missing = [...actors.missing, ...(committed === null ? [commitsWord(commit, args.since)] : [])];
  const people = [...new Set([...actors.people, ...(committed ?? [])])].sort();
  return { commit: commit === "" ? null : commit, people, missing };
}

function actorsOf(provider: (typeof PROVIDERS)[number], env: Variables): Pick<CiFacts, "people" | "missing"> {
  const named = provider.actors.map((name) => ({ name, value: env[name]?.trim() ?? "" }));
  return {
    people: named.filter((a) => a.value !== "").map((a) => personName(provider.name, a.value)),
    missing: named.filter((a) => a.value === "").map((a) => a.name),
  };
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value.trim() !== "" && value.trim().toLowerCase() !== "false";
}

/** An address is the same person in every CI; a login is one only there. */
function personName(provider: string, value: string): string {
  return value.includes("@") ? value.toLowerCase() : `${provider}:${value}`;
}

function commitsWord(commit: string, since: string | null): string {
  return commit === "" || since === null ? "the commits" : `the commits since ${since.slice(0, 12)}`;
}

/** Addresses of authors and committers; null where git cannot tell them all. */
async function committedBy(args: {
  readonly cwd: string;
  readonly since: string | null;
  readonly path: string | null;
  readonly commit: string;
}): Promise<readonly string[] | null> {
  // A shallow clone ends somewhere, and git then calls its last commit the first: authors before it would be missed.
  const shallow = (await git(["rev-parse", "--is-shallow-repository"], args.cwd)).trim();
  if (args.since !== null) {
    if (!/^[0-9a-f]{40,64}$/.test(args.since)) return null; // never read as an option or a range
    const base = (await git(["merge-base", "--is-ancestor", args.since, "HEAD"], args.cwd, "code")).trim();
    if (base !== "0" || shallow !== "false") return null;
    // The job runs once more as it was applied: nobody wrote anything since.
    if (args.since === args.commit) return [];
    return addressesIn(await git(["log", LOG_FORMAT, `${args.since}..HEAD`], args.cwd));
  }
  const head = await git(["log", "-1", LOG_FORMAT, "HEAD"], args.cwd);
  if (shallow !== "false") return null;
  const file = args.path === null ? "" : await git(["log", LOG_FORMAT, "HEAD", "--", args.path], args.cwd);
  return addressesIn(`${head}\n${file}`);
}

const LOG_FORMAT = "--format=%ae%n%ce";

function addressesIn(text: string): readonly string[] | null {
  const found = [
    ...new Set(
      text
        .split("\n")
        .map((l) => l.trim().toLowerCase())
        .filter((l) => l !== ""),
    ),
  ];
  return found.length === 0 || found.length > MOST_PEOPLE ? null : found;
}

/** What git prints, or (`code`) how it ended; nothing of this environment but the path goes with it. */
async function git(
  args: readonly string[],
  cwd: string,
  want: "output" | "code" = "output",
): Promise<string> {
  return new Promise((resolve) => {
    execFile(
      "git",
      ["--no-replace-objects", ...args],
      { cwd, timeout: 10_000, maxBuffer: 16 * 1024 * 1024, env: { PATH: process.env["PATH"] ?? "" } },
      (error, stdout) => {
        if (want === "code") resolve(error === null ? "0" : messageOf(error));
        else resolve(error === null ? stdout : "");
      },
    );
  });
}
