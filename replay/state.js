// The state of the load balancers as it was before anybody did anything, as arithmetic over ids: the database is filled by
// the same formulas in SQL, so what a row must be is known without having kept a copy of ten million of them.

/** How many of 1,000 balancers nobody has changed since long before the outage: 6.8 %, as on the day. */
export const IDLE_OF_THOUSAND = 68;
/** Back ends of each balancer. */
export const BACK_ENDS = 10;
/** The purge takes balancers that were not changed since then. */
export const CUTOFF = "2012-11-01T00:00:00Z";

const REGIONS = ["us-east-1", "us-west-2", "eu-west-1"];

/** Whether the purge would take the balancer as it was in the beginning. 7,919 is prime, so idle ones lie scattered. */
export function isIdle(id) {
  return (id * 7919) % 1000 < IDLE_OF_THOUSAND;
}

/** A balancer of the beginning, cells in the table's order. */
export function balancer(id) {
  return [id, 1 + ((id * 17) % 997), `lb-${id}.elb.example`, REGIONS[id % 3], changedAt(id)];
}

/** The ids of a balancer's first back ends. */
export function backEndIds(balancerId) {
  return Array.from({ length: BACK_ENDS }, (_, n) => (balancerId - 1) * BACK_ENDS + n + 1);
}

/** A back end of the beginning, cells in the table's order. */
export function backEnd(id) {
  return [
    id,
    Math.floor((id - 1) / BACK_ENDS) + 1,
    `10.${id % 251}.${id % 241}.${id % 239}`,
    50 + ((id * 31) % 3) * 50,
  ];
}

function changedAt(id) {
  return isIdle(id) ? `2012-10-0${1 + (id % 7)}T08:00:00Z` : `2012-12-2${id % 4}T08:00:00Z`;
}

/** The tables, with the types of either database. */
export function schemaSql(integer, text) {
  return [
    `CREATE TABLE balancers (balancer_id ${integer} PRIMARY KEY, account ${integer} NOT NULL, dns_name ${text} NOT NULL UNIQUE,
       region ${text} NOT NULL, changed_at ${text} NOT NULL)`,
    `CREATE TABLE back_ends (back_end_id ${integer} PRIMARY KEY,
       balancer_id ${integer} NOT NULL REFERENCES balancers (balancer_id) ON DELETE CASCADE, address ${text} NOT NULL, weight ${integer} NOT NULL)`,
    // What owners gave up, by themselves: the control plane keeps it in the same transaction.
    `CREATE TABLE retirements (retirement_id ${integer} PRIMARY KEY, balancer_id ${integer} NOT NULL, at ${text} NOT NULL)`,
  ];
}

/** The statements that fill the tables; `numbers` is a table expression of `id` from 1 to `n`. */
export function fillSql(balancers, numbers) {
  return [
    `INSERT INTO balancers SELECT id, 1 + ((id * 17) % 997), 'lb-' || id || '.elb.example',
       CASE id % 3 WHEN 0 THEN 'us-east-1' WHEN 1 THEN 'us-west-2' ELSE 'eu-west-1' END,
       CASE WHEN (id * 7919) % 1000 < ${IDLE_OF_THOUSAND} THEN '2012-10-0' || (1 + (id % 7)) ELSE '2012-12-2' || (id % 4) END || 'T08:00:00Z'
       FROM ${numbers(balancers)}`,
    `INSERT INTO back_ends SELECT id, (id - 1) / ${BACK_ENDS} + 1, '10.' || (id % 251) || '.' || (id % 241) || '.' || (id % 239),
       50 + ((id * 31) % 3) * 50 FROM ${numbers(balancers * BACK_ENDS)}`,
    "CREATE INDEX back_ends_by_balancer ON back_ends (balancer_id)",
  ];
}

/** Mulberry32: a small seeded generator, public domain. */
export function seeded(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
