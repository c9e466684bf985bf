/** The set-up of 24 December 2012: 1,000 balancers, 5 back ends each, and the job that takes those of 68. */
import type { Oracle } from "../support/oracle.js";

/** When the job wrongly said that the back ends were gone. */
export const DAMAGED_AT = "2012-12-24T20:24:00Z";

/** The job, as it was meant to run in one environment and ran in another. */
export const JOB = `UPDATE back_ends SET deleted_at = '${DAMAGED_AT}' WHERE balancer <= 68`;

const numbers = (to: number): string =>
  `(WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < ${to}) SELECT v FROM n)`;

/** Balancers and their back ends. */
export const ELB = `
  CREATE TABLE balancers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
  CREATE TABLE back_ends (
    id INTEGER PRIMARY KEY,
    balancer INTEGER NOT NULL REFERENCES balancers (id) ON DELETE CASCADE,
    weight INTEGER NOT NULL,
    deleted_at TEXT
  );
  INSERT INTO balancers SELECT v, 'lb ' || v FROM ${numbers(1000)};
  INSERT INTO back_ends SELECT v, 1 + (v - 1) / 5, 10, NULL FROM ${numbers(5000)};
`;

/** The day after: people work on, on healthy balancers and on damaged ones. */
export function workOn(oracle: Oracle): void {
  for (let i = 1; i <= 40; i++) oracle.insert("balancers", { id: 1000 + i, name: `new ${i}` });
  for (let i = 0; i < 200; i++) oracle.set("back_ends", 341 + oracle.random(4660), "weight", 100 + i);
  for (let i = 0; i < 12; i++) oracle.set("back_ends", 30 + i * 3, "weight", 1000 + i);
  for (let i = 0; i < 3; i++) {
    // Their owners really retired these three: what the damage wrote is gone, and nobody may guess.
    oracle.set("back_ends", 100 + i, "deleted_at", "2012-12-24T21:00:00Z");
  }
  for (let balancer = 1; balancer <= 5; balancer++) {
    oracle.remove("balancers", balancer);
    for (let i = 1; i <= 5; i++) oracle.removedToo("back_ends", (balancer - 1) * 5 + i);
  }
}
