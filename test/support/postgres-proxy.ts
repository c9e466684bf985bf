/** A socket before a server's own, that can cut the line at a chosen word, or look like a pooler. The server is real. */
import { rmSync } from "node:fs";
import { connect as dial, createServer, type Socket } from "node:net";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestServer } from "./postgres.js";

/** What happens to the next COMMIT: it arrives and its answer does not, it does not arrive, or nothing special. */
export type Cut = "after" | "before" | "never";

/** A proxy; close it in `finally`. */
export interface TestProxy {
  readonly url: (database: string) => string;
  /** The next COMMIT only. */
  readonly cutCommit: (cut: Cut) => void;
  /** New connections go to this server from now on, as after a failover. */
  readonly leadTo: (server: Pick<TestServer, "folder">) => void;
  /** Whether new connections are let through. */
  readonly letThrough: (isOpen: boolean) => void;
  readonly close: () => Promise<void>;
}

/** @param isPooler the backend's number is another than the server's, as every pooler gives its own. */
export async function startProxy(server: TestServer, isPooler = false): Promise<TestProxy> {
  const folder = mkdtempSync(join(tmpdir(), "hp-px-"));
  let [cut, isOpen]: [Cut, boolean] = ["never", true];
  let { folder: behind } = server;
  const sockets = new Set<Socket>();
  const proxy = createServer((client) => {
    if (!isOpen) {
      client.destroy();
      return;
    }
    const upstream = dial(join(behind, ".s.PGSQL.5432"));
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
    let isCut = false;
    client.on("data", (data) => {
      if (cut === "never" || !data.includes("\0COMMIT\0")) {
        upstream.write(data);
        return;
      }
      const when = cut;
      cut = "never";
      isCut = true;
      if (when === "before") client.destroy();
      else upstream.write(data);
    });
    upstream.on("data", (data) => {
      // The answer to a COMMIT that was cut ends the line: by now it is committed.
      if (isCut) client.destroy();
      else client.write(isPooler ? withOtherKey(data) : data);
    });
  });
  await new Promise<void>((resolve) => proxy.listen(join(folder, ".s.PGSQL.5432"), resolve));
  return {
    url: (database) => `postgres://postgres@/${database}?host=${encodeURIComponent(folder)}`,
    cutCommit: (when) => {
      cut = when;
    },
    leadTo: (other) => {
      behind = other.folder;
    },
    letThrough: (open) => {
      isOpen = open;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => proxy.close(() => resolve()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** BackendKeyData is `K`, its length 12, process id, secret. */
function withOtherKey(data: Buffer): Buffer {
  const at = data.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
  if (at < 0) return data;
  const changed = Buffer.from(data);
  changed.writeUInt32BE(changed.readUInt32BE(at + 5) + 1, at + 5);
  return changed;
}
