/** The contract of targets, on real PostgreSQL servers of two majors. */
import { onPostgres } from "../support/on-postgres.js";

import { dumpPostgres, openPostgresTarget } from "../support/postgres-target.js";
import { describeTarget } from "./target.js";

onPostgres("the contract", "both", (server) => {
  describeTarget({
    name: "PostgreSQL",
    auditTrigger: `CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN INSERT INTO audit VALUES ('gone', OLD.id); RETURN NULL; END $$;
      CREATE TRIGGER orders_gone AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION gone()`,
    create: async () => {
      const url = await server().freshDatabase();
      return {
        open: () => openPostgresTarget(url),
        exec: (sql) => server().exec(url, sql),
        dump: () => dumpPostgres(url),
        drop: async () => undefined,
      };
    },
  });
});
