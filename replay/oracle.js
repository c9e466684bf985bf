// What must be in the database in the end, worked out without holdpoint: the state of the beginning, by its formulas, plus
// the journals of what the control plane wrote. Every row of every table is held against it.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { connectTo } from "./place.js";
import { BACK_ENDS, backEnd, balancer } from "./state.js";

/** Journals as what they add to the beginning. Each balancer is of one process, so its lines are in order. */
async function readJournals(files) {
  const read = {
    lines: 0,
    balancers: new Map(),
    backEnds: new Map(),
    retirements: new Map(),
    removed: new Set(),
    replaced: new Set(),
  };
  for (const file of files)
    for await (const line of createInterface({ input: createReadStream(file) })) {
      read.lines += 1;
      takeLine(read, JSON.parse(line));
    }
  return read;
}

function takeLine({ balancers, backEnds, retirements, removed, replaced }, [what, id, ...cells]) {
  const of = (map) => map.get(id) ?? map.set(id, {}).get(id);
  if (what === "balancer") balancers.set(id, { born: [id, ...cells] });
  else if (what === "changed") of(balancers)[4] = cells[0];
  else if (what === "back-end") backEnds.set(id, { born: [id, ...cells] });
  else if (what === "weight") of(backEnds)[3] = cells[0];
  else if (what === "back-end gone") of(backEnds).gone = true;
  else if (what === "retirement") retirements.set(id, { born: [id, ...cells] });
  else if (what === "retired") removed.add(id);
  else if (what === "replaced") replaced.add(id);
  else throw new Error(`the journal says ${what}`);
}

/** The rows that must be there, in order of their ids, each with the columns that a journal wrote. */
function* expected(first, count, changes, isGone) {
  const row = (id) => {
    const change = changes.get(id);
    if (change?.gone === true) return undefined;
    const cells = change?.born ?? first(id);
    if (isGone(cells)) return undefined;
    if (change === undefined) return { cells, wrote: none };
    const later = cells.map((cell, i) => change[i] ?? cell);
    return { cells: later, wrote: (i) => change.born !== undefined || change[i] !== undefined };
  };
  for (let id = 1; id <= count; id++) {
    const found = row(id);
    if (found !== undefined) yield found;
  }
  for (const id of [...changes.keys()].filter((k) => k > count).sort((a, b) => a - b)) {
    const found = row(id);
    if (found !== undefined) yield found;
  }
}

const none = () => false;

/**
 * Holds the database against what it must be.
 * @returns writes lost, rows resurrected, rows missing, rows that nobody wrote, references to nothing; and how many rows were looked at.
 */
export async function judge(place, balancers, journals) {
  const read = await readJournals(journals);
  const isGone = (id) => read.removed.has(id) || read.replaced.has(id);
  const verdict = {
    lost: [],
    resurrected: [],
    missing: [],
    strangers: [],
    orphans: 0,
    looked: 0,
    balancers: 0,
  };
  const db = await connectTo(place);
  try {
    const tables = [
      [
        "balancers",
        "balancer_id",
        expected(balancer, balancers, read.balancers, ([id]) => isGone(id)),
        isGone,
      ],
      [
        "back_ends",
        "back_end_id",
        expected(backEnd, balancers * BACK_ENDS, read.backEnds, ([, of]) => isGone(of)),
        (id, [, of]) => isGone(of) || read.backEnds.get(id)?.gone === true,
      ],
      ["retirements", "retirement_id", expected(none, 0, read.retirements, none), none],
    ];
    for (const [name, key, rows, wasRemoved] of tables)
      await judgeTable(db, { name, key, rows, wasRemoved }, verdict);
    const [[orphans]] = await db.rows(
      "SELECT count(*) FROM back_ends WHERE balancer_id NOT IN (SELECT balancer_id FROM balancers)",
    );
    verdict.orphans = orphans;
  } finally {
    await db.close();
  }
  return { ...verdict, writes: read.lines, replaced: read.replaced.size, retired: read.removed.size };
}

/** Both sides in order of their ids, in step. */
async function judgeTable(db, { name, key, rows, wasRemoved }, verdict) {
  let want = rows.next();
  for await (const found of db.stream(`SELECT * FROM ${name} ORDER BY ${key}`)) {
    verdict.looked += 1;
    if (name === "balancers") verdict.balancers += 1;
    for (; !want.done && want.value.cells[0] < found[0]; want = rows.next())
      absent(name, want.value, verdict);
    if (!want.done && want.value.cells[0] === found[0]) {
      compare(name, want.value, found, verdict);
      want = rows.next();
    } else
      (wasRemoved(found[0], found) ? verdict.resurrected : verdict.strangers).push(`${name} ${found[0]}`);
  }
  for (; !want.done; want = rows.next()) absent(name, want.value, verdict);
}

/** A row that is not there loses every write to it, and else was taken by the purge and not brought back. */
function absent(name, { cells, wrote }, verdict) {
  const written = cells.some((_, i) => wrote(i));
  (written ? verdict.lost : verdict.missing).push(`${name} ${cells[0]}`);
}

function compare(name, { cells, wrote }, found, verdict) {
  for (const [i, cell] of cells.entries()) {
    if (found[i] === cell) continue;
    const words = `${name} ${cells[0]}, column ${i + 1}: must be ${cell}, is ${found[i]}`;
    (wrote(i) ? verdict.lost : verdict.missing).push(words);
  }
}
