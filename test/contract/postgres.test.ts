/** The contract of targets, on a real PostgreSQL server. */
import { afterAll, beforeAll, describe, test } from "@jest/globals";
import { startServer, whyNoServer, type TestServer } from "../support/postgres.js";
import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { describeTarget } from "./target.js";

const missing = whyNoServer();
if (missing !== null) {
  describe("a target (PostgreSQL)", () => test.skip(missing, () => undefined));
} else {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer();
  });
  afterAll(async () => {
    await server.stop();
  });
  describeTarget({
    name: "PostgreSQL",
    auditTrigger: `CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO audit VALUES ('gone', OLD.id); RETURN NULL; END $$;
      CREATE TRIGGER orders_gone AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION gone()`,
    create: async () => {
      const url = await server.freshDatabase();
      return {
        open: () => openPostgresTarget(url),
        exec: (sql) => server.exec(url, sql),
        dump: () => dumpPostgres(url),
        drop: async () => undefined,
      };
    },
  });
}
