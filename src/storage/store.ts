/**
 * The store: the folder that holds everything holdpoint keeps (`docs/formats/store.md`). It holds before-images
 * of production rows, so it is its owner's alone, never reached through a link, never committed to git, and
 * never inside the target whose loss it is there for. Anything else is refused before a byte is written.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  type Stats,
  statSync,
} from "node:fs";
import { userInfo } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type NextStep, UsageError } from "../base/errors.js";
import { randomBytes } from "node:crypto";
import { storageFailure, storing } from "./sqlite.js";

/** How a store is opened. */
export interface StoreOptions {
  /** What a relative root is relative to. */
  readonly projectRoot: string;
  /** Make the folder where there is none. */
  readonly create: boolean;
  /** Whether git ignores a path (`git check-ignore`); asked only inside a git work tree. The path may not exist yet. */
  readonly isIgnored: (path: string) => Promise<boolean>;
  /**
   * Files and folders of targets, as far as the configuration names them: a folder made in the place of a database's log would
   * keep everybody out of it. What a target says of itself is asked when it is open ({@link Store.assertOutside}).
   */
  readonly targets: readonly string[];
}

/** An open store: the places of its parts. Holds nothing open. */
export interface Store {
  /** Absolute, links resolved. */
  readonly root: string;
  readonly plans: string;
  readonly changes: string;
  readonly snapshots: string;
  readonly bundles: string;
  /** A free path for a working file (`changes/`). */
  readonly workPath: () => string;
  /** Removes working files that nobody has touched since `before`: what killed processes left behind. */
  readonly sweep: (before: Date) => number;
  /**
   * Refuses a store that lies inside one of the paths, is one of them, or holds one of them.
   * @throws UsageError ERR_STORE_UNSAFE
   */
  readonly assertOutside: (paths: readonly string[]) => void;
}

const FOLDERS = ["plans", "changes", "snapshots", "bundles"] as const;

/**
 * Opens the store at `root`, or makes it (folders 0700) where `create` says so.
 * @throws UsageError ERR_STORE_UNSAFE when it, or a folder or file in it, can be read or written by group or
 * others, is a link, belongs to someone else, lies in a git work tree that does not ignore it, or in a target.
 * @throws UsageError ERR_STORE_MISSING when there is none and none is to be made.
 */
export async function openStore(root: string, options: StoreOptions): Promise<Store> {
  const path = resolve(options.projectRoot, root);
  for (const target of options.targets) requireApart(path, target);
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined && !options.create) throw noStore(path);
  if (there !== undefined) requirePrivate(path, there, "folder");
  await requireIgnored(path, options.isIgnored);
  makeFolders(path);
  requirePrivateContents(path);
  return storeAt(realpathSync(path));
}

function storeAt(root: string): Store {
  const changes = join(root, "changes");
  return {
    root,
    plans: join(root, "plans"),
    changes,
    snapshots: join(root, "snapshots"),
    bundles: join(root, "bundles"),
    workPath: () => join(changes, `${randomBytes(10).toString("hex")}.db`),
    sweep: (before) => storing("clear", changes, () => sweep(changes, before)),
    assertOutside: (paths) => {
      for (const path of paths) storing("look at", path, () => requireApart(root, path));
    },
  };
}

function makeFolders(root: string): void {
  try {
    for (const folder of [root, ...FOLDERS.map((f) => join(root, f))]) {
      if (existsSync(folder)) continue;
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      chmodSync(folder, 0o700); // mkdir's mode is cut by the umask
    }
  } catch (e) {
    throw storageFailure("make", root, e);
  }
}

/** The parts of the store itself and every file directly in it. */
function requirePrivateContents(root: string): void {
  for (const entry of readdirSync(root)) {
    const path = join(root, entry);
    const facts = lstatSync(path, { throwIfNoEntry: false }); // a side file of another process may be gone again
    if (facts !== undefined)
      requirePrivate(path, facts, FOLDERS.some((f) => f === entry) ? "folder" : "file");
  }
}

function requirePrivate(path: string, facts: Stats, kind: "folder" | "file"): void {
  if (facts.isSymbolicLink()) throw unsafe(path, `expected a ${kind}, found a symbolic link`);
  if (kind === "folder" ? !facts.isDirectory() : !facts.isFile())
    throw unsafe(path, `expected a ${kind}, found something else`);
  const me = userInfo();
  if (me.uid >= 0 && facts.uid !== me.uid)
    throw unsafe(path, `expected the owner ${me.uid} (${me.username}), found ${facts.uid}`);
  const mode = facts.mode & 0o777;
  if (me.uid < 0 || (mode & 0o077) === 0) return; // where there are no owners (Windows), modes say nothing
  const wanted = kind === "folder" ? "700" : "600";
  throw unsafe(path, `expected mode 0${wanted}, its owner's alone, found 0${mode.toString(8)}`, [
    { actor: "anyone", argv: ["chmod", wanted, path] },
  ]);
}

/**
 * Row images must not be one `git add .` away from a repository. Asked for files inside, because that is what
 * git would add; both a file and a folder, because a rule may name only one.
 */
async function requireIgnored(path: string, isIgnored: StoreOptions["isIgnored"]): Promise<void> {
  const tree = workTreeAround(dirname(path));
  if (tree === undefined) return;
  const probes = await Promise.all(["ledger.db", "snapshots"].map((probe) => isIgnored(join(path, probe))));
  if (!probes.every(Boolean)) {
    throw unsafe(path, `expected git to ignore it, found it open to \`git add\` in the work tree ${tree}`, [
      {
        actor: "anyone",
        text: `add a line for it to ${join(tree, ".gitignore")}, e.g. /${path.slice(tree.length + 1)}/`,
      },
    ]);
  }
}

/** The nearest folder upwards that has a `.git`; a file there stands for a linked work tree. */
function workTreeAround(folder: string): string | undefined {
  for (let at = folder; ; at = dirname(at)) {
    if (existsSync(join(at, ".git"))) return at;
    if (at === dirname(at)) return undefined;
  }
}

/** By device and inode up to the root, so that links, bind mounts and letter case do not hide the place. */
function requireApart(root: string, path: string): void {
  const target = realAncestors(path);
  const store = realAncestors(root);
  const [targetItself, storeItself] = [target[0], store[0]];
  if (targetItself !== undefined && store.includes(targetItself)) {
    throw unsafe(
      root,
      `it lies inside the target ${path}: what takes the target down would take its snapshots along`,
      moveIt,
    );
  }
  if (storeItself !== undefined && target.includes(storeItself)) {
    throw unsafe(root, `the target ${path} lies inside it: expected a place of its own for each`, moveIt);
  }
}

const moveIt: readonly NextStep[] = [
  { actor: "anyone", text: "set `store:` in holdpoint.yaml to a folder elsewhere" },
];

/** `device:inode` of what is at `path` and of every folder above it; a path that is not there yet begins at its folder. */
function realAncestors(path: string): readonly string[] {
  const ids: string[] = [];
  for (let at = realOf(resolve(path)); ; at = dirname(at)) {
    // Below a file there is nothing, which is asked as what is not there is.
    const facts = existsSync(at) ? statSync(at, { throwIfNoEntry: false, bigint: true }) : undefined;
    ids.push(facts === undefined ? `name:${at}` : `${facts.dev}:${facts.ino}`);
    if (at === dirname(at)) return ids;
  }
}

function realOf(path: string): string {
  if (path === dirname(path)) return path;
  return existsSync(path)
    ? realpathSync(path)
    : join(realOf(dirname(path)), path.slice(dirname(path).length));
}

function sweep(folder: string, before: Date): number {
  const stale = readdirSync(folder).filter((name) => {
    const facts = lstatSync(join(folder, name), { throwIfNoEntry: false });
    return facts !== undefined && facts.mtimeMs < before.getTime();
  });
  // Copies of a target that a killed command left behind are folders.
  for (const name of stale) rmSync(join(folder, name), { recursive: true, force: true });
  return stale.length;
}

function noStore(path: string): UsageError {
  return new UsageError({
    code: "ERR_STORE_MISSING",
    message: `there is no store at ${path}`,
    why: "expected the folder with ledger, plans and snapshots, found nothing",
    next: [
      {
        actor: "anyone",
        text: "check `store:` in holdpoint.yaml; the first `holdpoint plan` makes the folder",
      },
    ],
  });
}

function unsafe(path: string, why: string, next: readonly NextStep[] = []): UsageError {
  return new UsageError({
    code: "ERR_STORE_UNSAFE",
    message: `the store is not safe to use: ${path}`,
    why,
    next,
  });
}
