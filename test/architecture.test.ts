/**
 * Holds the import table of the house: who may import whom, which packages belong to one folder, and
 * that pure folders stay pure. Change the table by decision, never to make a build pass.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { describe, expect, test } from "@jest/globals";

const SRC = resolve(import.meta.dirname, "../../src");

const PURE = ["base", "changeset", "environment", "policy", "approval", "ledger", "render"] as const;

/** Folder → folders it may import, besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  changeset: ["base"],
  environment: ["base"],
  approval: ["base"],
  ledger: ["base"],
  policy: ["base", "changeset", "environment", "approval"],
  target: ["base", "changeset", "environment"],
  "adapters/sqlite": ["base", "changeset", "environment", "target"],
  "adapters/postgres": ["base", "changeset", "environment", "target"],
  jobs: ["base", "changeset", "target"],
  snapshot: ["base", "changeset", "target"],
  machine: ["base", "environment", "approval"],
  config: ["base", "approval", "policy", "environment", "jobs"],
  storage: ["base", "changeset", "ledger", "snapshot", "jobs"],
  operations: [
    "base",
    "changeset",
    "environment",
    "policy",
    "approval",
    "ledger",
    "target",
    "jobs",
    "snapshot",
    "config",
  ],
  render: ["base"],
  cli: ["operations", "render", "base", "config"],
};

/** `import type` reaches further: types are erased, so no arrow exists at run time. */
const MAY_IMPORT_TYPES: Readonly<Record<string, readonly string[]>> = {
  render: [
    "changeset",
    "environment",
    "policy",
    "approval",
    "ledger",
    "target",
    "snapshot",
    "operations",
    "config",
    "jobs",
  ],
  cli: [
    "changeset",
    "environment",
    "policy",
    "approval",
    "ledger",
    "target",
    "snapshot",
    "machine",
    "storage",
  ],
};

/**
 * The files of `cli` that may import adapters, machine and storage: where the toolbox is put together, and the program that
 * checks a plan in a process of its own, which has no toolbox.
 */
const WIRING: readonly string[] = ["cli/wiring.ts", "cli/opening.ts", "cli/verify-plan.ts"];

/** Package → the folders that alone may use it. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "@marcbachmann/cel-js": ["policy"],
  re2js: ["policy"],
  luxon: ["policy"],
  "better-sqlite3": ["adapters/sqlite", "storage"],
  pg: ["adapters/postgres"],
  "pg-cursor": ["adapters/postgres"],
  "pg-copy-streams": ["adapters/postgres"],
  "libpg-query": ["adapters/postgres"],
  jose: ["approval"],
  yaml: ["config"],
  ora: ["cli"],
  zod: ["config"],
  chalk: ["render"],
  "string-width": ["render"],
  commander: ["cli"],
  inquirer: ["cli"],
};

/** What makes a folder impure. Hashing, signature checks and compression are pure functions. */
const PURE_BUILTINS = new Set(["node:crypto", "node:zlib", "node:buffer"]);
const IMPURE_WORDS = [
  /\bprocess\s*\./,
  /\bDate\.now\b/,
  /\bMath\.random\b/,
  /\bnew Date\(\)/,
  /\bsetTimeout\b/,
  /\bfetch\(/,
];

interface Import {
  readonly from: string;
  readonly specifier: string;
  readonly typeOnly: boolean;
}

const files = listFiles(SRC);
const imports = files.flatMap(importsOf);

describe("the house", () => {
  test("every file of src stands in a folder of the table", () => {
    const strangers = files.map(pathInSrc).filter((f) => folderOf(f) === undefined);
    expect(strangers).toEqual([]);
  });

  test("imports follow the table", () => {
    const wrong = imports.flatMap((i) => {
      const to = localTarget(i);
      if (to === undefined) return [];
      const here = folderOf(i.from);
      const there = folderOf(to);
      if (here === undefined || there === undefined || here === there) return [];
      if (WIRING.includes(i.from)) return [];
      const allowed = [...(MAY_IMPORT[here] ?? []), ...(i.typeOnly ? (MAY_IMPORT_TYPES[here] ?? []) : [])];
      return allowed.includes(there) ? [] : [`${i.from} imports ${to}`];
    });
    expect(wrong).toEqual([]);
  });

  test("no two folders import each other", () => {
    const arrows = new Set<string>();
    for (const i of imports) {
      const to = localTarget(i);
      const here = folderOf(i.from);
      const there = to === undefined ? undefined : folderOf(to);
      if (i.typeOnly || here === undefined || there === undefined || here === there) continue;
      arrows.add(`${here} -> ${there}`);
    }
    const mutual = [...arrows].filter((a) => arrows.has(a.split(" -> ").reverse().join(" -> ")));
    expect(mutual).toEqual([]);
  });

  test("no cycle of files", () => {
    expect(findCycle()).toEqual([]);
  });

  test("packages stay in their folders", () => {
    const wrong = imports
      .filter((i) => !i.specifier.startsWith(".") && !i.specifier.startsWith("node:"))
      .filter((i) => !(PACKAGES[i.specifier] ?? []).includes(folderOf(i.from) ?? ""))
      .map((i) => `${i.from} uses ${i.specifier}`);
    expect(wrong).toEqual([]);
  });

  test("pure folders import nothing impure", () => {
    const wrong = imports
      .filter((i) => isPure(i.from) && i.specifier.startsWith("node:") && !PURE_BUILTINS.has(i.specifier))
      .map((i) => `${i.from} imports ${i.specifier}`);
    expect(wrong).toEqual([]);
  });

  test("pure folders ask the machine for nothing", () => {
    const wrong = files
      .filter((f) => isPure(pathInSrc(f)))
      .flatMap((f) => {
        const code = withoutComments(readFileSync(f, "utf8"));
        return IMPURE_WORDS.filter((w) => w.test(code)).map((w) => `${pathInSrc(f)} says ${w.source}`);
      });
    expect(wrong).toEqual([]);
  });
});

function listFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
    const path = join(folder, e.name);
    return e.isDirectory() ? listFiles(path) : e.name.endsWith(".ts") ? [path] : [];
  });
}

function pathInSrc(file: string): string {
  return relative(SRC, file);
}

function folderOf(path: string): string | undefined {
  return Object.keys(MAY_IMPORT).find((f) => path.startsWith(`${f}/`));
}

function isPure(path: string): boolean {
  return PURE.some((f) => path.startsWith(`${f}/`));
}

function importsOf(file: string): Import[] {
  const code = withoutComments(readFileSync(file, "utf8"));
  const found: Import[] = [];
  for (const [, type, names, fromStatic, fromDynamic] of code.matchAll(
    /\b(?:import|export)\s+(type\s+)?([^;"']*?\bfrom\s+)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/g,
  )) {
    const specifier = fromStatic ?? fromDynamic;
    if (specifier !== undefined)
      found.push({
        from: pathInSrc(file),
        specifier,
        typeOnly: type !== undefined || isTypesOnly(names ?? ""),
      });
  }
  return found;
}

/** `{ type A, type B } from` and nothing beside. */
function isTypesOnly(names: string): boolean {
  const inside = /^\{([\s\S]*)\}\s*from\s*$/.exec(names.trim())?.[1];
  if (inside === undefined) return false;
  const parts = inside
    .split(",")
    .map((p) => p.trim())
    .filter((p) => p !== "");
  return parts.length > 0 && parts.every((p) => p.startsWith("type "));
}

function localTarget(i: Import): string | undefined {
  if (!i.specifier.startsWith(".")) return undefined;
  return pathInSrc(resolve(SRC, dirname(i.from), i.specifier.replace(/\.js$/, ".ts")));
}

function withoutComments(code: string): string {
  return code.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "$1");
}

function findCycle(): string[] {
  const edges = new Map<string, string[]>();
  for (const i of imports) {
    const to = localTarget(i);
    if (to !== undefined && !i.typeOnly) edges.set(i.from, [...(edges.get(i.from) ?? []), to]);
  }
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return [];
    for (const to of edges.get(file) ?? []) {
      const cycle = visit(to, [...path, file]);
      if (cycle.length > 0) return cycle;
    }
    done.add(file);
    return [];
  };
  for (const file of edges.keys()) {
    const cycle = visit(file, []);
    if (cycle.length > 0) return cycle;
  }
  return [];
}
