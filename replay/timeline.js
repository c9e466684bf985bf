// What the replay says in the end: its times beside those of the day, and what became of every write.

const WIDTH = 100;

/** The closing screen. */
export function timeline({
  place,
  balancers,
  purge,
  seconds,
  cpuSeconds,
  control,
  verdict,
  listed,
  conflicts,
  spent,
  stopped,
}) {
  const rows = [
    ["", "24 Dec 2012", "here", ""],
    [
      "stopped before it happened",
      "no",
      duration(stopped.refusedSeconds),
      "another target than the one named",
    ],
    ["cause known", "4 h 38 min", duration(seconds.known), "snapshot diff: what is gone, since when"],
    ["usable snapshot", "9 h 43 min", duration(seconds.usable), "read back whole, digests as in the ledger"],
    ["merged with newer writes", "2 h 55 min", duration(seconds.merged), "rescue: a plan of what is certain"],
    ["two people signed", "", duration(seconds.signed), "beside the time that they need to read"],
    [
      "enabled again",
      "4 h 50 min – 6 h 25 min",
      duration(seconds.enabled),
      "three waves, a health check after each",
    ],
    ["rescue to last wave", "", duration(seconds.rescueToLastWave), "hold, rescue, signatures, waves"],
  ];
  const sum = (name) => control.reduce((n, c) => n + c[name], 0);
  const slowest = Math.max(0, ...control.flatMap((c) => c.slow.map(([, ms]) => ms)));
  const peak = Math.max(...spent.map((s) => s.megabytes));
  return [
    "",
    "━".repeat(WIDTH),
    `${number(balancers)} balancers with ten times as many back ends, on ${place}`,
    "",
    ...rows.map(
      ([what, then, here, how]) => `${what.padEnd(28)}${then.padEnd(26)}${here.padStart(11)}   ${how}`,
    ),
    "",
    `The purge took ${number(purge.gone)} balancers (${((100 * purge.gone) / balancers).toFixed(1)} %) with their back ends. Meanwhile ${control.length} processes of the control`,
    `plane made ${number(verdict.writes)} writes; owners gave up ${number(sum("retiredWhileMissing"))} balancers that were gone, and made ${number(sum("recreated"))} anew;`,
    `${number(sum("waited"))} requests waited for the repair. The longest that a request took was ${(slowest / 1000).toFixed(1)} s.`,
    `Of the processor rescue took ${duration(cpuSeconds.merged)}, signatures ${duration(cpuSeconds.signed)}, apply ${duration(cpuSeconds.enabled)}, and all`,
    `from rescue to the last wave ${duration(cpuSeconds.rescueToLastWave)}. Peak memory of a command: ${peak.toFixed(0)} MB.`,
    "",
    ...verdictLines(verdict),
    `  left to their owners to decide: ${number(conflicts)} rows, and ${number(listed)} must be (their names live again)`,
    "",
  ].join("\n");
}

/** What became of every row. */
export function verdictLines({ looked, balancers, lost, resurrected, missing, strangers, orphans }) {
  return [
    `${number(looked)} rows were looked at, those of ${number(balancers)} balancers:`,
    `  writes lost ${lost.length}   rows resurrected ${resurrected.length}   not brought back ${missing.length}   written by nobody ${strangers.length}   broken references ${orphans}`,
  ];
}

/** The figures, for other programs. */
export function figures({
  purge,
  seconds,
  cpuSeconds,
  verdict,
  conflicts,
  listed,
  spent,
  control,
  balancers,
}) {
  return {
    balancers,
    purged: purge.gone,
    seconds,
    cpuSeconds,
    peakMegabytes: Math.max(...spent.map((s) => s.megabytes)),
    commands: spent.map(({ args, seconds: clock, cpuSeconds: cpu, megabytes }) => ({
      command: args[0],
      seconds: clock,
      cpuSeconds: cpu,
      megabytes,
    })),
    writes: verdict.writes,
    slowestMs: Math.max(0, ...control.flatMap((c) => c.slow.map(([, ms]) => ms))),
    lost: verdict.lost.length,
    resurrected: verdict.resurrected.length,
    missing: verdict.missing.length,
    strangers: verdict.strangers.length,
    orphans: verdict.orphans,
    conflicts,
    conflictsExpected: listed,
  };
}

function duration(s) {
  return s < 60 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

function number(n) {
  return n.toLocaleString("en-US");
}
