/**
 * Ends holdpoint's sessions on a server, or lets the whole server crash: `postgres-fault.js URL end|crash`. A program of its
 * own, so that the faulty process can wait for it between two steps. After a crash it waits until the server has recovered.
 */
import { connect } from "./postgres.js";

const [url = "", what = ""] = process.argv.slice(2);

const OURS = "application_name = 'holdpoint' AND datname = current_database()";

async function end(): Promise<void> {
  const client = await connect(url);
  try {
    await client.rows(`SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE ${OURS}`);
  } finally {
    await client.close();
  }
}

/** A backend that is killed takes all others with it: the server cannot know what it left in their shared memory. */
async function crash(): Promise<void> {
  const client = await connect(url);
  const [row] = await client.rows("SELECT pg_backend_pid(), pg_postmaster_start_time()::text");
  process.kill(Number(row?.[0]), "SIGKILL");
  await client.close().catch(() => undefined);
  for (let attempt = 0; ; attempt++) {
    try {
      const again = await connect(url);
      await again.rows("SELECT 1");
      await again.close();
      return;
    } catch (e) {
      if (attempt >= 600) throw e;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

if (what === "crash") await crash();
else await end();
