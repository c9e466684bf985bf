/** Suites that run on the PostgreSQL servers of this machine, once for each major. */
import { afterAll, beforeAll, describe, test } from "@jest/globals";
import { findServers, serverOfRun, whyNoServer, type TestServer } from "./postgres.js";

/**
 * Which majors a suite runs on: the first that is found, or one more as well. `HOLDPOINT_MAJORS=all` runs every suite on
 * both.
 */
export type Majors = "first" | "both";

/**
 * A suite on the servers of this run, once for each major; visibly skipped where there is none. `server` may be called
 * inside of tests and hooks only.
 */
export function onPostgres(
  name: string,
  majors: Majors,
  tests: (server: () => TestServer, which: "first" | "second") => void,
): void {
  for (const which of majors === "both" || process.env["HOLDPOINT_MAJORS"] === "all"
    ? (["first", "second"] as const)
    : (["first"] as const)) {
    const at = which === "first" ? 0 : 1;
    const missing = whyNoServer(at + 1);
    const kind = findServers()[at];
    if (missing !== null || kind === undefined) {
      process.stderr.write(`skipped: ${name}: ${missing ?? ""}\n`);
      describe(name, () => test.skip(missing ?? "", () => undefined));
      continue;
    }
    describe(`${name} (PostgreSQL ${kind.major})`, () => {
      let shared: TestServer | undefined;
      beforeAll(async () => {
        shared = await serverOfRun(kind);
      });
      afterAll(async () => {
        await shared?.stop();
      });
      tests(() => {
        if (shared === undefined) throw new Error("asked for the server before it was started");
        return shared;
      }, which);
    });
  }
}
