/**
 * The one place where operations meet the machine: adapters, storage, keys, clock and randomness are put
 * together here, once for each command, and handed down as a {@link Toolbox}.
 */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { homedir, hostname, userInfo } from "node:os";
import { relative } from "node:path";
import { openSqlite } from "../adapters/sqlite/index.js";
import { makeBundle, parseBundle } from "../approval/bundle.js";
import { personOfKey } from "../approval/people.js";
import type { Clock } from "../base/clock.js";
import { UsageError } from "../base/errors.js";
import {
  type Config,
  loadConfig,
  findConfig,
  guardingOf,
  resolveUrl,
  targetConfigOf,
  targetKind,
} from "../config/config.js";
import { readPeople } from "../config/people-file.js";
import { parsePolicies, readPolicies } from "../config/policies.js";
import { type JobRequest, type PreparedJob, resolveJob } from "../jobs/job.js";
import { gitBranch, gitIgnores, runBounded } from "../machine/child.js";
import { callerKind, machineEvidence } from "../machine/evidence.js";
import { findKey, type FoundKey, keyFingerprint, signBytes } from "../machine/ssh-sign.js";
import type { Interruption } from "../operations/interruption.js";
import type { Project, Progress, SigningKey, Toolbox } from "../operations/toolbox.js";
import { compilePolicies } from "../policy/compile.js";
import { type Bundles, openBundles } from "../storage/bundles.js";
import { createChanges } from "../storage/changes.js";
import { openLedger } from "../storage/ledger.js";
import { openPlans } from "../storage/plans.js";
import { openSnapshots } from "../storage/snapshots.js";
import { openStore, type Store } from "../storage/store.js";
import type { Target } from "../target/target.js";

/** What a toolbox is made for. */
export interface WiringOptions {
  readonly cwd: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly isInteractive: boolean;
  readonly progress: Progress;
  /** Takes what a job's child prints. */
  readonly narrate: (text: string) => void;
  readonly interruption: Interruption;
}

/** A toolbox with what it holds open; close it when the command ends. */
export interface Wired {
  readonly tools: Toolbox;
  readonly close: () => void;
}

/** Reads the project around `cwd` and puts the toolbox together. Opens no target. */
export async function wire(options: WiringOptions): Promise<Wired> {
  const clock: Clock = { now: () => new Date() };
  const random = (size: number): Uint8Array => randomBytes(size);
  const project = await readProject(await findConfig(options.cwd));
  const { config } = project;
  const store = await openStore(config.store, {
    projectRoot: config.root,
    create: true,
    isIgnored: (path) => gitIgnores(path, config.root),
  });
  // What killed commands left behind; a running one touches its files more often than once a day.
  store.sweep(new Date(clock.now().getTime() - 24 * 3_600_000));
  const ledger = await openLedger(store.root, { clock, random });
  const branch = await gitBranch(config.root);
  const workingChanges: Toolbox["workingChanges"] = () =>
    createChanges(store.workPath(), { runBounded, removeOnClose: true });
  const tools: Toolbox = {
    clock,
    random,
    project,
    openTarget: (name) => openTarget(config, store, name, options.env, clock),
    prepareJob: (on, request, given) => prepareJob(config, on, request, given, store, options),
    machineEvidence: () => machineEvidence(options.env, options.cwd, branch),
    claims: () => claims(options.env, branch),
    ledger: () => Promise.resolve(ledger),
    plans: openPlans(store),
    snapshots: openSnapshots(store, { workingChanges }),
    workingChanges,
    assertStoreOutside: (paths) => Promise.resolve(store.assertOutside(paths)),
    findKey: (flag, namespace) => signingKey(flag, namespace, project, options, clock),
    bundles: bundleShelf(openBundles(store)),
    progress: options.progress,
    interruption: options.interruption,
  };
  return { tools, close: () => ledger.close() };
}

async function readProject(file: string): Promise<Project> {
  const config = await loadConfig(file);
  const people = await readPeople(config);
  const policies = await readPolicies(config.policies, relative(config.root, config.policies));
  const digests = policies.map((p) => ({ path: p.path, digest: p.digest }));
  return {
    config,
    people,
    policies: compilePolicies(parsePolicies(policies)),
    bundleFor: (target) => makeBundle({ people, policies: digests, guarding: guardingOf(config, target) }),
  };
}

async function openTarget(
  config: Config,
  store: Store,
  name: string,
  env: WiringOptions["env"],
  clock: Clock,
): Promise<{ readonly target: Target; readonly origins: Awaited<ReturnType<typeof resolveUrl>>["origins"] }> {
  const { url, origins } = resolveUrl(config, name, env);
  const kind = targetKind(url, config.root);
  if (kind.kind !== "sqlite") throw notSupported(name, kind.kind);
  const target = await openSqlite({
    name,
    path: kind.path,
    foreignKeys: targetConfigOf(config, name).foreignKeys,
    clock,
    random: (size) => randomBytes(size),
    scratchDir: store.changes,
  });
  return { target, origins };
}

/** A job's scratch lies in the store: private, swept, and never inside a target. */
async function prepareJob(
  config: Config,
  on: string,
  request: JobRequest,
  given: readonly string[],
  store: Store,
  options: WiringOptions,
): Promise<PreparedJob> {
  const scratch = store.workPath();
  await mkdir(scratch, { mode: 0o700 });
  return resolveJob(config, request, given, {
    cwd: options.cwd,
    scratch,
    environment: options.env,
    output: options.narrate,
    node: process.execPath,
    connection: {
      connector: new URL("../adapters/sqlite/job-connection.js", import.meta.url).href,
      settings: { foreign_keys: targetConfigOf(config, on).foreignKeys ? "on" : "off" },
    },
  });
}

function notSupported(name: string, kind: string): UsageError {
  return new UsageError({
    code: "ERR_TARGET_UNSUPPORTED",
    message: `${name} is a ${kind} target, and this version speaks to SQLite only`,
  });
}

async function signingKey(
  flag: string | undefined,
  namespace: string,
  project: Project,
  options: WiringOptions,
  clock: Clock,
): Promise<SigningKey> {
  const found: FoundKey = await findKey({
    keyFlag: flag,
    people: project.people,
    home: options.env["HOME"] ?? homedir(),
    env: options.env,
    namespace,
    now: clock.now(),
  });
  const fingerprint = found.fingerprint ?? (await keyFingerprint(found.kind === "file" ? found.path : ""));
  return {
    fingerprint,
    person: found.person ?? personOfKey(project.people, fingerprint, namespace, clock.now())?.name ?? null,
    sign: async (bytes) =>
      (
        await signBytes({
          bytes,
          namespace,
          key: found,
          interactive: options.isInteractive,
          env: options.env,
        })
      ).signature,
  };
}

/** Facts that the requester's machine tells about itself: shown as claims, and only ever used to tighten. */
function claims(env: WiringOptions["env"], branch: string | undefined): Record<string, string> {
  const kind = callerKind(env);
  return {
    login: loginName(),
    host: hostname(),
    ...(branch === undefined ? {} : { branch }),
    ...(kind === "person" ? {} : { [kind]: "yes" }),
  };
}

function loginName(): string {
  try {
    return userInfo().username;
  } catch {
    return "unknown"; // a user id without an entry in the password file, as in many containers
  }
}

function bundleShelf(bundles: Bundles): Toolbox["bundles"] {
  return {
    keep: (digest, bytes) => bundles.keep(digest, bytes),
    find: async (digest) => {
      const bytes = await bundles.find(digest);
      return bytes === null ? null : parseBundle(bytes);
    },
  };
}
