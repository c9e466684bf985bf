/**
 * What this machine says about where we are: variables, folder, branch. It misleads more often than it
 * helps (an exported `DATABASE_URL`, a `NODE_ENV` left over), so it is shown beside the verdict and never
 * counts for it. Values are read as text from strangers: secrets are left out, control characters too.
 */
import type { Environment, Evidence } from "../environment/evidence.js";

type Variables = Readonly<Record<string, string | undefined>>;

/** Variables that name an environment in many frameworks. */
const ENVIRONMENT_VARIABLES = [
  "NODE_ENV",
  "RAILS_ENV",
  "RACK_ENV",
  "APP_ENV",
  "APP_ENVIRONMENT",
  "DJANGO_ENV",
  "FLASK_ENV",
  "MIX_ENV",
  "ASPNETCORE_ENVIRONMENT",
  "DOTNET_ENVIRONMENT",
  "DEPLOY_ENV",
  "ENVIRONMENT",
  "ENV",
  "STAGE",
  "CI_ENVIRONMENT_NAME",
  "VERCEL_ENV",
] as const;

/** Variables that point tools at a cluster, an account or a project. */
const CONTEXT_VARIABLES = [
  "KUBECONFIG",
  "KUBE_CONTEXT",
  "AWS_PROFILE",
  "AWS_DEFAULT_PROFILE",
  "AWS_VAULT",
  "AWS_REGION",
  "GOOGLE_CLOUD_PROJECT",
  "GCLOUD_PROJECT",
  "CLOUDSDK_CORE_PROJECT",
  "CLOUDSDK_ACTIVE_CONFIG_NAME",
  "GOOGLE_APPLICATION_CREDENTIALS",
  "AZURE_CONFIG_DIR",
  "ARM_ENVIRONMENT",
  "DOCKER_CONTEXT",
  "DOCKER_HOST",
  "TF_WORKSPACE",
  "HEROKU_APP",
  "PGSERVICE",
  "PGHOST",
  "PGDATABASE",
  "MYSQL_HOST",
] as const;

/** Variables that hold an address with credentials: only host and database are ever shown. */
const ADDRESS_VARIABLES = ["DATABASE_URL", "DB_URL", "POSTGRES_URL", "MYSQL_URL", "REDIS_URL"] as const;

/** Variables that a pipeline sets. */
const CI_VARIABLES = [
  "CI",
  "GITHUB_ACTIONS",
  "GITHUB_WORKFLOW",
  "GITHUB_REF_NAME",
  "GITLAB_CI",
  "CI_COMMIT_REF_NAME",
  "BUILDKITE",
  "BUILDKITE_PIPELINE",
  "BUILDKITE_BRANCH",
  "CIRCLECI",
  "CIRCLE_BRANCH",
  "JENKINS_URL",
  "JOB_NAME",
  "TEAMCITY_VERSION",
  "TF_BUILD",
  "BITBUCKET_BUILD_NUMBER",
  "DRONE",
] as const;

/** Variables by which a program that acts on its own says so. A hint that may only tighten. */
const AGENT_VARIABLES = ["AI_AGENT", "AGENT"] as const;

/** Longest value shown; the rest is cut. */
const LONGEST = 60;

/**
 * One piece of evidence for each variable that is set, in a fixed order, then the folder and the branch.
 * Every one has side `machine` and strength `none`. `says` is set where the value is, or contains as a word,
 * the usual name of an environment.
 * @param env the environment variables, `process.env` in the program
 * @param cwd the working directory
 * @param gitBranch the checked-out branch, where there is one
 */
export function machineEvidence(env: Variables, cwd: string, gitBranch?: string): Evidence[] {
  const found: Evidence[] = [];
  for (const name of [...ENVIRONMENT_VARIABLES, ...CONTEXT_VARIABLES]) {
    const value = given(env, name);
    if (value !== undefined) found.push(signal(name, shown(value), environmentIn(value)));
  }
  for (const name of ADDRESS_VARIABLES) {
    const value = given(env, name);
    if (value === undefined) continue;
    const place = placeOfAddress(value);
    found.push(
      signal(name, place === null ? "set, value not shown" : shown(place), environmentIn(place ?? "")),
    );
  }
  for (const name of CI_VARIABLES) {
    const value = given(env, name);
    if (value !== undefined) found.push(signal(name, shown(value), null));
  }
  found.push(signal("working directory", clean(cwd), environmentIn(cwd)));
  if (gitBranch !== undefined) found.push(signal("git branch", shown(gitBranch), environmentIn(gitBranch)));
  return found;
}

/** What the target's own address says by its words: `db1.prod.example/shop`, a path. A tunnel says `localhost` of anything. */
export function addressEvidence(url: string): readonly Evidence[] {
  const path = /^sqlite:(.*)$/s.exec(url)?.[1];
  const place = path ?? placeOfAddress(url);
  return place === null || place === "" ? [] : [signal("address", shown(place), environmentIn(place))];
}

/**
 * Who seems to be asking. Only ever used to tighten: an agent may hide, and a rule that must hold against
 * one rests on keys it cannot reach, not on this.
 */
export function callerKind(env: Variables): "person" | "ci" | "agent" {
  if (AGENT_VARIABLES.some((name) => isOn(env[name]))) return "agent";
  return [
    "CI",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "BUILDKITE",
    "JENKINS_URL",
    "CIRCLECI",
    "TF_BUILD",
    "DRONE",
  ].some((name) => isOn(env[name]))
    ? "ci"
    : "person";
}

function isOn(value: string | undefined): boolean {
  return value !== undefined && !["", "0", "false", "no"].includes(value.trim().toLowerCase());
}

function given(env: Variables, name: string): string | undefined {
  const value = env[name]?.trim();
  return value === undefined || value === "" ? undefined : value;
}

function signal(source: string, detail: string, says: Environment | null): Evidence {
  return { source, side: "machine", strength: "none", says, state: "informs", detail };
}

const NAMES: readonly (readonly [Environment, readonly string[]])[] = [
  ["production", ["production", "prod", "prd", "live"]],
  ["staging", ["staging", "stage", "stg", "preprod", "uat"]],
  ["development", ["development", "develop", "dev", "test", "local", "sandbox"]],
];

/** The environment that a value names as a word; production first, because that is what must not be overlooked. */
function environmentIn(value: string): Environment | null {
  const words = new Set(value.toLowerCase().split(/[^a-z]+/));
  return NAMES.find(([, names]) => names.some((n) => words.has(n)))?.[0] ?? null;
}

function shown(value: string): string {
  return looksSecret(value) ? "set, value not shown" : clean(value);
}

/** Errs on the side of hiding: an address with credentials, well-known key shapes, or one long run of mixed letters and digits. */
function looksSecret(value: string): boolean {
  if (value.includes("@") || /\b(?:pass(?:word)?|secret|token|key)\s*[=:]/i.test(value)) return true;
  if (/-----BEGIN|^(?:AKIA|ASIA|gh[opsu]_|github_pat_|glpat-|xox[abp]-|sk-|eyJ)/.test(value)) return true;
  return value
    .split(/[^A-Za-z0-9+=_-]+/)
    .some((run) => run.length >= 24 && /\d/.test(run) && /[A-Za-z]/.test(run));
}

/** `host/database` of an address, never user, password or query; null when it cannot be read with certainty. */
function placeOfAddress(value: string): string | null {
  if (!URL.canParse(value)) return null;
  const { hostname, pathname } = new URL(value);
  if (hostname === "" || hostname.includes("@") || pathname.includes("@")) return null;
  const place = `${hostname}${pathname === "/" ? "" : pathname}`;
  return looksSecret(place) ? null : place;
}

function clean(value: string): string {
  const visible = value.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, "?");
  return visible.length <= LONGEST ? visible : `${visible.slice(0, LONGEST - 1)}…`;
}
