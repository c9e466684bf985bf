/** A server that is reached over TLS as well as by its socket, and that asks everybody but the superuser for a password. */
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { column } from "./postgres-project.js";
import { ownerOf, startServer, type TestServer } from "./postgres.js";

/** Certificates made for these tests alone; their keys open nothing else. */
export const CERTIFICATES = resolve(import.meta.dirname, "../../../test/support/tls");

/** See {@link startSecured}. */
export interface SecuredServer extends TestServer {
  readonly port: number;
  /** The certificate that new connections are shown: `server` is issued by `ca.crt` for `localhost`, `self` by nobody. */
  readonly show: (certificate: "server" | "self") => Promise<void>;
}

const RULES = `local all postgres trust
host all postgres 127.0.0.1/32 trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
`;

/** Starts it; `localhost` and `127.0.0.1` lead to it over `port`. */
export async function startSecured(): Promise<SecuredServer> {
  const folder = mkdtempSync(join(tmpdir(), "holdpoint-tls-"));
  chmodSync(folder, 0o755);
  const lay = (certificate: "server" | "self"): void => {
    for (const part of ["key", "crt"]) {
      const file = join(folder, `server.${part}`);
      copyFileSync(join(CERTIFICATES, `${certificate}.${part}`), file);
      chmodSync(file, 0o600);
      ownerOf(file);
    }
  };
  lay("server");
  const rules = join(folder, "rules");
  writeFileSync(rules, RULES);
  ownerOf(rules);
  const port = await freePort();
  const server = await startServer({
    listen_addresses: "127.0.0.1",
    port: String(port),
    ssl: "on",
    ssl_cert_file: join(folder, "server.crt"),
    ssl_key_file: join(folder, "server.key"),
    hba_file: rules,
    password_encryption: "scram-sha-256",
  });
  return {
    ...server,
    port,
    show: async (certificate) => {
      const loaded = "SELECT pg_conf_load_time()";
      const [before] = await column(server.url("postgres"), loaded);
      lay(certificate);
      await server.exec(server.url("postgres"), "SELECT pg_reload_conf()");
      // A backend that was begun with the new settings shows the new certificate.
      while ((await column(server.url("postgres"), loaded))[0] === before);
    },
    stop: async () => {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((done, failed) => {
    const server = createServer();
    server.on("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => done(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
