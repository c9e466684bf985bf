/** A real PgBouncer before a real server: recognised and refused, in every mode, and nothing of ours stays on its connections. */
import { expect, test } from "@jest/globals";
import { onPostgres } from "../support/on-postgres.js";
import { startPgBouncer, whyNoPgBouncer } from "../support/pgbouncer.js";
import { connect } from "../support/postgres.js";
import { makePostgresProject } from "../support/postgres-project.js";
import { openPostgresTarget } from "../support/postgres-target.js";
import { refusal } from "../support/refusal.js";

const missing = whyNoPgBouncer();

onPostgres("a pooler", "first", (server) => {
  (missing === null ? test.each : test.skip.each)(["transaction", "session"] as const)(
    `that pools by %s is refused, and its connections stay as they were${missing === null ? "" : `: ${missing}`}`,
    async (mode) => {
      const pooler = await startPgBouncer(server(), mode);
      try {
        const database = new URL(
          (await server().freshDatabase()).replace("@/", "@localhost/"),
        ).pathname.slice(1);
        const settings = async (): Promise<unknown> => {
          const client = await connect(pooler.url(database));
          try {
            return await client.rows(
              "SELECT pg_backend_pid(), json_object_agg(name, setting ORDER BY name) FROM pg_settings WHERE name <> 'application_name'",
            );
          } finally {
            await client.close();
          }
        };
        const before = await settings();
        const e = await refusal(() => openPostgresTarget(pooler.url(database)));
        expect([e.code, e.message]).toEqual([
          "ERR_TARGET_UNSUPPORTED",
          expect.stringMatching(/^a connection pooler stands before db/),
        ]);
        expect(e.next[0]?.text).toMatch(
          /^Use the server's own host and port .* reaches it by a socket .*, port 5432\.$/,
        );
        // The same backend, as it was before: settings of ours would be those of the application now.
        expect(await settings()).toEqual(before);
      } finally {
        await pooler.stop();
      }
    },
  );

  (missing === null ? test : test.skip)(
    `is told by the commands (2), and the server behind it is reached by its own address${missing === null ? "" : `: ${missing}`}`,
    async () => {
      const pooler = await startPgBouncer(server(), "transaction");
      const url = await server().freshDatabase();
      const project = makePostgresProject(url);
      try {
        const behind = url.replace(/host=.*/, pooler.url("x").replace(/.*\?/, ""));
        project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(url, behind));
        const checked = project.json(["env", "check", "shop-prod"]);
        expect([checked.exit.code, checked.error?.code]).toEqual([2, "ERR_TARGET_UNSUPPORTED"]);
        expect(project.run(["doctor"]).stdout).toContain("a connection pooler stands before");
        project.write("holdpoint.yaml", project.read("holdpoint.yaml").replace(behind, url));
        expect(project.json(["env", "check", "shop-prod"]).exit.code).toBe(0);
      } finally {
        project.close();
        await pooler.stop();
      }
    },
  );
});
