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
import { openSqlite, sqlitePaths } from "../adapters/sqlite/index.js";
import { makeBundle, parseBundle } from "../approval/bundle.js";
import { personOfKey } from "../approval/people.js";
import type { CiMapping } from "../approval/requesters.js";
import type { Json } from "../base/canonical.js";
import type { Clock } from "../base/clock.js";
import { asFarAsPossible, UsageError } from "../base/errors.js";
import { digestOf } from "../base/digest.js";
import { isIdOrPrefix } from "../base/ids.js";
import {
  type Config,
  loadConfig,
  findConfig,
  guardingOf,
  refuseMaskedSums,
  resolveUrl,
  targetConfigOf,
  targetKind,
  withMasks,
} from "../config/config.js";
import { identitiesInBundle } from "../config/ci-identities.js";
import { readCi, readPeople } from "../config/people-file.js";
import { readSystemPins } from "../config/system-pins.js";
import { parsePolicies, readPolicies } from "../config/policies.js";
import { type JobRequest, type PreparedJob, resolveJob } from "../jobs/job.js";
import { committedFile, confinement, gitBranch, gitIgnores, runBounded } from "../machine/child.js";
import { addressEvidence, callerKind, machineEvidence } from "../machine/evidence.js";
import { credentialFiles } from "../machine/credential-files.js";
import { fileFacts, fileText, variablesNaming } from "../machine/probe.js";
import { ciFacts } from "../machine/ci.js";
import { ciToken } from "../machine/ci-token.js";
import { runGuard } from "../machine/guard.js";
import { readAddress } from "../machine/address.js";
import { keysInReach } from "../machine/keys-in-reach.js";
import { findKey, type FoundKey, keyFingerprint, signBytes } from "../machine/ssh-sign.js";
import type { Interruption } from "../operations/writing/interruption.js";
import type { Project, Progress, SigningKey, Toolbox } from "../operations/toolbox.js";
import { type CompiledPolicies, compilePolicies } from "../policy/compile.js";
import { type Bundles, openBundles } from "../storage/bundles.js";
import { createChanges } from "../storage/changes.js";
import { openLedger } from "../storage/ledger.js";
import { openPlans } from "../storage/plans.js";
import { queryPreparer } from "../storage/prepare-query.js";
import { openRowIndex, type RowIndex } from "../storage/row-index.js";
import { openSnapshots } from "../storage/snapshots.js";
import { storing } from "../storage/sqlite.js";
import { openStore, type Store } from "../storage/store.js";
import { verifyApart } from "./apart.js";

export { queryPreparer } from "../storage/prepare-query.js";

export { pagerCommand, startPager } from "../machine/pager.js";
import { dumpShelf, openTarget } from "./opening.js";

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
      targets: pathsOfTargets(config, options.env),
    }),
    gitBranch(config.root),
  ]);
  // What killed commands left behind; a running one touches its files more often than once a day.
  store.sweep(new Date(clock.now().getTime() - 24 * 3_600_000));
  const ledger = await openLedger(store.root, { clock, random });
  const workingChanges = (): ReturnType<typeof createChanges> =>
    createChanges(store.workPath(), { runBounded, removeOnClose: true });
  const plans = openPlans(store);
  let rowIndex: Promise<RowIndex> | undefined;
  const opened: RowIndex[] = [];
  const tools: Toolbox = {
    clock,
    random,
    project,
    openTarget: (name, purpose = "plan") => openTarget(config, store, { name, purpose }, options.env, clock),
    prepareJob: (on, request, given) => prepareJob(config, on, request, given, store, options),
    machineEvidence: (target, purpose) => [
      ...addressEvidence(resolveUrl(config, target, options.env, purpose).url),
      ...machineEvidence(options.env, options.cwd, branch),
    ],
    claims: () => claims(options.env, branch),
    ciFacts: (since, path) => ciFacts({ env: options.env, cwd: config.root, since, path }),
    ciToken: (audience) => ciToken(options.env, audience),
    ledger: () => Promise.resolve(ledger),
    plans,
    verifyApart: (ref) =>
      verifyApart(
        { run: runBounded, confinement },
        ref,
        isIdOrPrefix("pl", ref) ? plans.find(ref) : resolve(options.cwd, ref),
      ),
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
    dumps: dumpShelf(config, store, options.env, clock),
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
    queryPreparer,
    probe: {
      file: fileFacts,
      text: fileText,
      variablesNaming: (name) =>
        variablesNaming(options.env, resolveUrl(config, name, options.env).url, config.root),
      credentialFiles: (name) =>
        credentialFiles({
          address: resolveUrl(config, name, options.env).url,
          root: config.root,
          home: options.env["HOME"] ?? homedir(),
          env: options.env,
        }),
    },
    progress: options.progress,
    interruption: options.interruption,
    wait: (ms) => (ms <= 0 ? setImmediate() : setTimeout(ms)),
    guard: (program, data, signal) =>
      runGuard(program, data, {
        cwd: config.root,
        environment: options.env,
        cancelled: () => signal?.aborted === true || options.interruption.insisted(),
      }),
    readAddress,
  };
  const close = (): void => {
    ledger.close();
    for (const index of opened) index.close();
  };
  return { tools, close };
}

/** The files of all targets that are files, of which this machine knows the address. */
function pathsOfTargets(config: Config, env: WiringOptions["env"]): readonly string[] {
  return Object.keys(config.targets).flatMap((name) => {
    try {
      const kind = targetKind(resolveUrl(config, name, env).url, config.root);
      return kind.kind === "sqlite" ? sqlitePaths(kind.path) : [];
    } catch (e) {
      if (e instanceof UsageError) return []; // said when that target is asked for
      throw e;
    }
  });
}

async function readProject(file: string): Promise<Project> {
  const config = await loadConfig(file);
  const people = await readPeople(config);
  const ci = await readCi(config, people);
  const texts = await readPolicies(config.policies, relative(config.root, config.policies));
  const digests = texts.map((p) => ({ path: p.path, digest: p.digest }));
  // Commands that only read our own ledger do not wait for rules that they do not ask.
  let compiled: CompiledPolicies | undefined;
  const policies = (): CompiledPolicies => {
    if (compiled !== undefined) return compiled;
    const made = compilePolicies(parsePolicies(texts));
    refuseMaskedSums(config, masksOf(made));
    return (compiled = made);
  };
  return {
    config: withMasks(config, () => masksOf(policies())),
    people,
    ci,
    get policies() {
      return policies();
    },
    bundleFor: (target) => {
      // Whatever opens a target holds its bundle against the marker: rules that cannot be read stop it here.
      policies();
      const guarding = guardingOf(targetConfigOf(config, target));
      return makeBundle({
        people,
        policies: digests,
        guarding: ci === null ? guarding : { ...guarding, ci: ciInBundle(ci) },
      });
    },
  };
}

/** What policies that are on mask; one that is off decides nothing. */
function masksOf({ files }: CompiledPolicies): readonly string[] {
  return [...new Set(files.flatMap(({ file }) => (file.enabled ? file.mask : [])))];
}

/** A project without identities has the bundle that it had before there were any. */
function ciInBundle(ci: CiMapping): Json {
  const { accounts, people, identities } = ci;
  return {
    accounts,
    people,
    ...(identities === undefined ? {} : { identity: identitiesInBundle(identities) }),
  };
}

/** Copies of a target hold its rows: they lie in the store, private, and are swept with its working files. */
function scratchFolder(store: Store): ReturnType<Toolbox["scratch"]> {
  const path = store.workPath();
  storing("make", path, () => mkdirSync(path, { mode: 0o700 }));
  return {
    path,
    remove: () => asFarAsPossible(() => rmSync(path, { recursive: true, force: true })),
  };
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
