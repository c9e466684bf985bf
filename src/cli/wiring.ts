/**
 * The one place where operations meet the machine: adapters, storage, keys, clock and randomness are put
 * together here, once for each command, and handed down as a {@link Toolbox}.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { homedir, hostname, userInfo } from "node:os";
import { relative, resolve } from "node:path";
import { setImmediate, setTimeout } from "node:timers/promises";
import { openSqlite } from "../adapters/sqlite/index.js";
import { makeBundle, parseBundle } from "../approval/bundle.js";
import { personOfKey } from "../approval/people.js";
import type { Clock } from "../base/clock.js";
import { digestOf } from "../base/digest.js";
import {
  type Config,
  loadConfig,
  findConfig,
  guardingOf,
  resolveUrl,
  targetConfigOf,
  targetKind,
} from "../config/config.js";
import { readCi, readPeople } from "../config/people-file.js";
import { readSystemPins } from "../config/system-pins.js";
import { parsePolicies, readPolicies } from "../config/policies.js";
import { type JobRequest, type PreparedJob, resolveJob } from "../jobs/job.js";
import { committedFile, gitBranch, gitIgnores, runBounded } from "../machine/child.js";
import { callerKind, machineEvidence } from "../machine/evidence.js";
import { fileFacts, variablesNaming } from "../machine/probe.js";
import { ciFacts } from "../machine/ci.js";
import { runGuard } from "../machine/guard.js";
import { keysInReach } from "../machine/keys-in-reach.js";
import { findKey, type FoundKey, keyFingerprint, signBytes } from "../machine/ssh-sign.js";
import type { Interruption } from "../operations/writing/interruption.js";
import type { Project, Progress, SigningKey, Toolbox } from "../operations/toolbox.js";
import { type CompiledPolicies, compilePolicies } from "../policy/compile.js";
import { type Bundles, openBundles } from "../storage/bundles.js";
import { createChanges } from "../storage/changes.js";
import { openLedger } from "../storage/ledger.js";
import { openPlans } from "../storage/plans.js";
import { openRowIndex, type RowIndex } from "../storage/row-index.js";
import { openSnapshots } from "../storage/snapshots.js";
import { openStore, type Store } from "../storage/store.js";
import type { Target } from "../target/target.js";

export { pagerCommand, startPager } from "../machine/pager.js";

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
  // Side by side: each asks git in a process of its own.
  const [store, branch] = await Promise.all([
    openStore(config.store, {
      projectRoot: config.root,
      create: true,
      isIgnored: (path) => gitIgnores(path, config.root),
    }),
    gitBranch(config.root),
  ]);
  // What killed commands left behind; a running one touches its files more often than once a day.
  store.sweep(new Date(clock.now().getTime() - 24 * 3_600_000));
  const ledger = await openLedger(store.root, { clock, random });
  const workingChanges: Toolbox["workingChanges"] = () =>
    createChanges(store.workPath(), { runBounded, removeOnClose: true });
  let rowIndex: Promise<RowIndex> | undefined;
  const opened: RowIndex[] = [];
  const tools: Toolbox = {
    clock,
    random,
    project,
    openTarget: (name) => openTarget(config, store, name, options.env, clock),
    prepareJob: (on, request, given) => prepareJob(config, on, request, given, store, options),
    machineEvidence: () => machineEvidence(options.env, options.cwd, branch),
    claims: () => claims(options.env, branch),
    ciFacts: (since, path) => ciFacts({ env: options.env, cwd: config.root, since, path }),
    ledger: () => Promise.resolve(ledger),
    plans: openPlans(store),
    snapshots: openSnapshots(store, { workingChanges }),
    scratch: () => scratchFolder(store),
    openCopy: (path, of) =>
      openSqlite({
        name: of,
        path,
        foreignKeys: targetConfigOf(config, of).foreignKeys,
        clock,
        random,
        scratchDir: store.changes,
      }),
    rowIndex: () => {
      rowIndex ??= openRowIndex(store.root, { random }).then((index) => {
        opened.push(index);
        return index;
      });
      return rowIndex;
    },
    workingChanges,
    assertStoreOutside: (paths) => Promise.resolve(store.assertOutside(paths)),
    findKey: (flag, namespace) => signingKey(flag, namespace, project, options, clock),
    keysInReach: (flag) =>
      keysInReach({
        keyFlag: flag,
        home: options.env["HOME"] ?? homedir(),
        agent: options.env["SSH_AUTH_SOCK"],
      }),
    systemPin: async (target) => {
      const pins = await readSystemPins();
      return Object.hasOwn(pins, target) ? (pins[target] ?? null) : null;
    },
    bundles: bundleShelf(openBundles(store)),
    committed: (job) => committedJob(job, config.root, options.cwd),
    probe: {
      file: fileFacts,
      variablesNaming: (name) =>
        variablesNaming(options.env, resolveUrl(config, name, options.env).url, config.root),
    },
    progress: options.progress,
    interruption: options.interruption,
    wait: (ms) => (ms <= 0 ? setImmediate() : setTimeout(ms)),
    guard: (program, data) =>
      runGuard(program, data, {
        cwd: config.root,
        environment: options.env,
        cancelled: options.interruption.insisted,
      }),
  };
  const close = (): void => {
    ledger.close();
    for (const index of opened) index.close();
  };
  return { tools, close };
}

async function readProject(file: string): Promise<Project> {
  const config = await loadConfig(file);
  const people = await readPeople(config);
  const ci = await readCi(config, people);
  const texts = await readPolicies(config.policies, relative(config.root, config.policies));
  const digests = texts.map((p) => ({ path: p.path, digest: p.digest }));
  // Commands that only read our own ledger do not wait for rules that they do not ask.
  let compiled: CompiledPolicies | undefined;
  const policies = (): CompiledPolicies => (compiled ??= compilePolicies(parsePolicies(texts)));
  return {
    config,
    people,
    ci,
    get policies() {
      return policies();
    },
    bundleFor: (target) => {
      // Whatever opens a target holds its bundle against the marker: rules that cannot be read stop it here.
      policies();
      const guarding = guardingOf(config, target);
      return makeBundle({
        people,
        policies: digests,
        guarding: ci === null ? guarding : { ...guarding, ci: { accounts: ci.accounts, people: ci.people } },
      });
    },
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
  const random = (size: number): Uint8Array => randomBytes(size);
  switch (kind.kind) {
    case "sqlite": {
      const { foreignKeys } = targetConfigOf(config, name);
      const scratchDir = store.changes;
      return {
        target: await openSqlite({ name, path: kind.path, foreignKeys, clock, random, scratchDir }),
        origins,
      };
    }
    case "postgres": {
      // Its packages are optional, and no start of a command should wait for them in vain.
      const { openPostgres } = await import("../adapters/postgres/index.js");
      return { target: await openPostgres({ name, url: kind.url, clock, random, env }), origins };
    }
  }
}

/** Copies of a target hold its rows: they lie in the store, private, and are swept with its working files. */
function scratchFolder(store: Store): ReturnType<Toolbox["scratch"]> {
  const path = store.workPath();
  mkdirSync(path, { mode: 0o700 });
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
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
    engine: targetKind(resolveUrl(config, on, options.env).url, config.root).kind,
    connection: {
      connector: new URL("../adapters/sqlite/job-connection.js", import.meta.url).href,
      settings: { foreign_keys: targetConfigOf(config, on).foreignKeys ? "on" : "off" },
    },
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
    sign: async (bytes, other) =>
      (
        await signBytes({
          bytes,
          namespace: other ?? namespace,
          key: found,
          interactive: options.isInteractive,
          env: options.env,
        })
      ).signature,
  };
}

/** A plan's path is as its requester gave it: the file counts only if it lies in this project and holds the very bytes. */
async function committedJob(
  job: Parameters<Toolbox["committed"]>[0],
  root: string,
  cwd: string,
): ReturnType<Toolbox["committed"]> {
  if (job.path === null) return null;
  for (const path of new Set([resolve(root, job.path), resolve(cwd, job.path)])) {
    if (relative(root, path).startsWith("..")) continue;
    const bytes = await readFile(path).catch(() => null);
    if (bytes !== null && digestOf(bytes) === job.source) return committedFile(path, root);
  }
  return null;
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
