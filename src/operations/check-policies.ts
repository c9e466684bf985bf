/** Policies by themselves: their tests, and what looks wrong in them. No target, no store, no key is touched. */
import { dirname, relative, resolve } from "node:path";
import type { Person } from "../approval/requirement.js";
import { UsageError } from "../base/errors.js";
import { findConfig, loadConfig } from "../config/config.js";
import { readPeople } from "../config/people-file.js";
import { parsePolicies, readPolicies, readPolicy } from "../config/policies.js";
import { type CompiledPolicies, compilePolicies } from "../policy/compile.js";
import { lintAssertions, type PrepareAssertion } from "../policy/lint-assertions.js";
import { lintPolicies, type LintFinding } from "../policy/lint.js";
import { runPolicyTests, type TestOutcome } from "../policy/test-cases.js";
import type { Toolbox } from "./toolbox.js";

/** One file's tests. */
export interface FileTested {
  readonly file: string;
  readonly enabled: boolean;
  readonly outcomes: readonly TestOutcome[];
}

/**
 * Runs the tests of one file, or of every policy of the project around `cwd`.
 * @throws UsageError ERR_POLICY_INVALID with the place of the first fault.
 */
export async function testPolicies(cwd: string, file: string | null): Promise<readonly FileTested[]> {
  const compiled = file === null ? (await projectPolicies(cwd)).policies : await oneFile(cwd, file);
  return compiled.files.map((f) => ({
    file: f.file.file,
    enabled: f.file.enabled,
    outcomes: runPolicyTests(f),
  }));
}

async function oneFile(cwd: string, file: string): Promise<CompiledPolicies> {
  if (file.trim() === "")
    throw new UsageError({ code: "ERR_USAGE", message: "the name of the file is blank" });
  return compilePolicies(parsePolicies([await readPolicy(resolve(cwd, file), file)]));
}

/**
 * Looks through the policies of the project around `cwd`, with the groups of its people file.
 * @param prepare finds out whether an assertion could be asked
 */
export async function lintProject(
  cwd: string,
  now: Date,
  prepare: PrepareAssertion,
): Promise<readonly LintFinding[]> {
  const { policies, people } = await projectPolicies(cwd);
  return [...lintPolicies(policies, groupsOf(people), now), ...lintAssertions(policies, prepare, null)];
}

/** The same, held against the tables and columns that a target has now. */
export async function lintAgainst(tools: Toolbox, name: string): Promise<readonly LintFinding[]> {
  const { policies, people } = tools.project;
  const { target } = await tools.openTarget(name);
  try {
    const { tables } = await target.schema();
    const known = new Map(tables.map((t) => [t.name, t.columns.map((c) => c.name)]));
    const prepare = await tools.queryPreparer();
    return [
      ...lintPolicies(policies, groupsOf(people), tools.clock.now()),
      ...lintAssertions(policies, prepare, { target: name, tables: known }),
    ];
  } finally {
    await target.close();
  }
}

async function projectPolicies(
  cwd: string,
): Promise<{ readonly policies: CompiledPolicies; readonly people: readonly Person[] }> {
  const config = await loadConfig(await findConfig(cwd));
  const shown = relative(dirname(config.file), config.policies);
  const sources = await readPolicies(config.policies, shown);
  return { policies: compilePolicies(parsePolicies(sources)), people: await readPeople(config) };
}

/** Who is in which group, from the people. */
export function groupsOf(people: readonly Person[]): Readonly<Record<string, readonly string[]>> {
  const groups = new Map<string, string[]>();
  for (const person of people)
    for (const group of person.groups) groups.set(group, [...(groups.get(group) ?? []), person.name]);
  return Object.fromEntries(groups);
}
