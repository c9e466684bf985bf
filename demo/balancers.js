// Load balancer state, seeded: the same numbers make the same rows on every machine.
import Database from "better-sqlite3";

/**
 * Makes the database and returns handles for the story.
 * 6.8 % of the balancers were last seen before the cutoff; theirs are the rows that the job touches.
 */
export function makeBalancers(path, { balancers, backEndsEach, seed }) {
  const db = new Database(path);
  db.pragma("journal_mode = WAL");
  db.exec(`
    CREATE TABLE balancers (
      id INTEGER PRIMARY KEY,
      account TEXT NOT NULL,
      dns_name TEXT NOT NULL UNIQUE,
      region TEXT NOT NULL,
      last_seen_at TEXT NOT NULL
    );
    CREATE TABLE back_ends (
      id INTEGER PRIMARY KEY,
      balancer_id INTEGER NOT NULL REFERENCES balancers (id) ON DELETE CASCADE,
      address TEXT NOT NULL,
      port INTEGER NOT NULL,
      weight INTEGER NOT NULL DEFAULT 100,
      healthy INTEGER NOT NULL DEFAULT 1,
      deleted_at TEXT
    );
    CREATE INDEX back_ends_by_balancer ON back_ends (balancer_id);
  `);
  const random = mulberry32(seed);
  const regions = ["us-east-1", "us-west-2", "eu-west-1"];
  const balancer = db.prepare("INSERT INTO balancers VALUES (?, ?, ?, ?, ?)");
  const backEnd = db.prepare(
    "INSERT INTO back_ends (balancer_id, address, port, weight, healthy) VALUES (?, ?, ?, ?, ?)",
  );
  const unseen = pick(random, balancers, Math.round(balancers * 0.068));
  db.transaction(() => {
    for (let id = 1; id <= balancers; id++) {
      const account = `acct-${String(1 + Math.floor(random() * 200)).padStart(3, "0")}`;
      const day = unseen.has(id) ? "2012-10-0" : "2012-12-2";
      const seen = `${day}${1 + Math.floor(random() * 4)}T08:00:00Z`;
      balancer.run(id, account, `lb-${id}.elb.example`, regions[id % 3], seen);
      for (let n = 0; n < backEndsEach; n++) {
        const address = `10.${id >> 8}.${id & 255}.${10 + n}`;
        backEnd.run(id, address, 8080, 50 + Math.floor(random() * 3) * 50, random() < 0.97 ? 1 : 0);
      }
    }
  })();
  const first = Math.min(...unseen);
  return {
    now: "2012-12-24T20:24:00Z",
    cutoff: "2012-11-01T00:00:00Z",
    damagedBackEnd: (first - 1) * backEndsEach + 1,
    write: (...statements) => statements.forEach((sql) => db.exec(sql)),
    ask: (sql) => db.prepare(sql).get(),
    close: () => db.close(),
  };
}

/** `size` different numbers of 1..most. */
function pick(random, most, size) {
  const chosen = new Set();
  while (chosen.size < size) chosen.add(1 + Math.floor(random() * most));
  return chosen;
}

/** A small seeded generator: Mulberry32, public domain. */
function mulberry32(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
