/** A holdpoint project over a PostgreSQL database, driven through the real binary like {@link makeProject}'s. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "./postgres.js";
import { makeKey, projectAt, type TestProject } from "./project.js";

/** How a project is set up. */
export interface PostgresProjectOptions {
  readonly target?: string;
  readonly environment?: "production" | "staging" | "development";
  readonly pin?: boolean;
  /** What stands in the configuration in place of the url, e.g. `${DATABASE_URL}`. */
  readonly address?: string;
  /** Changes the files before the target is pinned. */
  readonly configure?: (project: TestProject) => void;
}

/** Makes the project and pins the target; close it in `finally` or `afterEach`. */
export function makePostgresProject(url: string, options: PostgresProjectOptions = {}): TestProject {
  const target = options.target ?? "shop-prod";
  const dir = mkdtempSync(join(tmpdir(), "holdpoint-test-"));
  mkdirSync(join(dir, "keys"));
  for (const person of ["dana", "ravi"]) makeKey(join(dir, "keys", person), person);
  const project = projectAt(dir, "", target);
  const people = ["dana", "ravi"].flatMap((p) => ["--person", `${p}=keys/${p}.pub`]);
  const environment = options.environment ?? "production";
  const steps = [
    ["init", "--target", target, "--url", url, "--environment", environment, ...people],
    ...((options.pin ?? true) ? [["env", "pin", target, "--confirm", target]] : []),
  ];
  for (const args of steps) {
    if (args[0] === "env") options.configure?.(project);
    const ran = project.run(args);
    if (ran.status === 0) continue;
    rmSync(dir, { recursive: true, force: true });
    throw new Error(`${args.join(" ")} ended with ${ran.status}\n${ran.stdout}${ran.stderr}`);
  }
  return project;
}

/** The first column of a query's rows, as the superuser sees them. */
export async function column(url: string, sql: string): Promise<readonly (string | null)[]> {
  const client = await connect(url);
  try {
    return (await client.rows(sql)).map((row) => row[0] ?? null);
  } finally {
    await client.close();
  }
}
