/** TLS against a real server with a certificate of its own: what is checked, what is refused, and what evidence tells. */
import { chmodSync, copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { openPostgresTarget } from "../support/postgres-target.js";
import { ownerOf, startServer, type TestServer, whyNoServer } from "../support/postgres.js";
import { refusal } from "../support/refusal.js";

/** Made for these tests alone; the key opens nothing else. */
const FILES = resolve(import.meta.dirname, "../../../test/support/tls");
const CA = encodeURIComponent(join(FILES, "ca.crt"));
const PASSWORD = "open-sesame-17";

/** A port that was free a moment ago. */
function freePort(): Promise<number> {
  return new Promise((done, failed) => {
    const server = createServer();
    server.on("error", failed);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => done(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

const why = whyNoServer();
(why === null ? describe : describe.skip)(`TLS${why === null ? "" : `: ${why}`}`, () => {
  let server: TestServer;
  let folder: string;
  let port: number;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "holdpoint-tls-"));
    chmodSync(folder, 0o755);
    const [key, certificate] = [join(folder, "server.key"), join(folder, "server.crt")];
    copyFileSync(join(FILES, "server.key"), key);
    copyFileSync(join(FILES, "server.crt"), certificate);
    chmodSync(key, 0o600);
    ownerOf(key);
    port = await freePort();
    server = await startServer({
      listen_addresses: "127.0.0.1",
      port: String(port),
      ssl: "on",
      ssl_cert_file: certificate,
      ssl_key_file: key,
    });
  });
  afterAll(async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const url = (host: string, query: string): string =>
    `postgres://postgres:${PASSWORD}@${host}:${port}/postgres?${query}`;
  async function evidence(query: string): Promise<Readonly<Record<string, string>>> {
    const target = await openPostgresTarget(url("localhost", query));
    try {
      const { signals } = await target.identify();
      return Object.fromEntries(signals.map((s) => [s.source, s.detail]));
    } finally {
      await target.close();
    }
  }

  test.each([
    [`sslmode=verify-full&sslrootcert=${CA}`, "issuer and name checked"],
    [`sslmode=verify-ca&sslrootcert=${CA}`, "issuer checked, name not"],
    ["sslmode=require", "nothing checked"],
  ])("%s: the certificate's names are evidence, with what was checked", async (query, checked) => {
    const told = await evidence(query);
    expect(told["TLS certificate"]).toMatch(
      /^DNS:db\.shop\.example, DNS:localhost, issued by Test Authority, until \d{4}-\d\d-\d\d; /,
    );
    expect(told["TLS certificate"]).toContain(checked);
    expect(told["TLS"]).toMatch(/^TLSv1\.[23]/);
  });

  test("without TLS there is no certificate to tell of", async () => {
    const told = await evidence("sslmode=disable");
    expect(told["TLS certificate"]).toBeUndefined();
    expect(told["TLS"]).toMatch(/^none/);
  });

  test.each([
    [
      "another authority",
      "localhost",
      `sslmode=verify-full&sslrootcert=${encodeURIComponent(join(FILES, "other-ca.crt"))}`,
    ],
    [
      "another authority, name not asked",
      "localhost",
      `sslmode=verify-ca&sslrootcert=${encodeURIComponent(join(FILES, "other-ca.crt"))}`,
    ],
    ["a name that is not the certificate's", "127.0.0.1", `sslmode=verify-full&sslrootcert=${CA}`],
    ["no authority named for a private one", "localhost", "sslmode=verify-full"],
  ])("%s is refused (39), and the error shows no password", async (_name, host, query) => {
    const error = await refusal(() => openPostgresTarget(url(host, query)));
    expect(error.code).toBe("ERR_TARGET_UNREACHABLE");
    expect(JSON.stringify([error.message, error.why, error.next])).not.toContain(PASSWORD);
  });
});
