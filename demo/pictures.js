// The pictures of README.md: real commands in a real pseudo-terminal, drawn cell by cell from what they wrote.
//
//   npm run pictures        plays the story in a temporary directory and writes docs/pictures/*.svg
//
// Ids, times and keys are those of the run. A step that ends otherwise than the story expects stops it with an error.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { spawn } from "@lydell/node-pty";
import xterm from "@xterm/headless";
import Database from "better-sqlite3";
import { svgOf } from "./svg.js";

const bin = resolve(import.meta.dirname, "../bin/holdpoint.js");
const out = resolve(import.meta.dirname, "../docs/pictures");
const base = mkdtempSync(join(tmpdir(), "holdpoint-"));
const dir = join(base, "shop");
const COLUMNS = 100;
const RELEASE = "DELETE FROM order_holds WHERE held_since < '2026-06-01';\n";

const EXPIRE = `UPDATE orders SET status = 'cancelled'
 WHERE id IN (SELECT order_id FROM order_holds WHERE held_since < '2026-06-01')`;

try {
  prepare();
  mkdirSync(out, { recursive: true });
  const planned = await picture("plan", 0, [
    ["plan", "expire-stale-holds", "--on", "shop-prod", "--key", "keys/dana", "--ticket", "OPS-4412"],
  ]);
  const plan = /pl_\w+/.exec(planned)?.[0] ?? "";
  await picture("approve", 0, [["approve", plan, "--key", "keys/ravi"]], {
    turns: [
      [/About how many rows/, "5\r"],
      [/Decide: /, "reject\r"],
      [/Reason/, "paid orders must not be cancelled; leave 7 and 8 out\r"],
    ],
  });
  await undoWithConflict();
} finally {
  rmSync(base, { recursive: true, force: true });
}

/** A mended job, applied; then somebody edits what it wrote, and it is taken back. */
async function undoWithConflict() {
  write("jobs/expire.sql", `${EXPIRE} AND status = 'pending';\n${RELEASE}`);
  commit("leave paid orders alone");
  const planned = await play(["plan", "expire-stale-holds", "--on", "shop-prod", "--key", "keys/dana"], 0);
  const plan = /pl_\w+/.exec(planned.text)?.[0] ?? "";
  hold(["approve", plan, "--prepare", "a.txt", "--as", "ravi"]);
  execFileSync("ssh-keygen", ["-q", "-Y", "sign", "-n", "holdpoint-approval", "-f", "keys/ravi", "a.txt"], {
    cwd: dir,
    stdio: "ignore",
  });
  hold(["approve", plan, "--prepared", "a.txt", "--signature", "a.txt.sig"]);
  const applied = await picture("apply", 0, [["apply", plan]], {
    turns: [[/to start: *$/, "shop-prod\r"]],
  });
  const run = /rn_\w+/.exec(applied)?.[0] ?? "";
  const db = new Database(join(dir, "shop.db"));
  db.exec(
    "UPDATE orders SET status = 'refunded' WHERE id = 12; UPDATE orders SET note = 'called' WHERE id = 15",
  );
  db.close();
  await picture("undo", 37, [["undo", run, "--key", "keys/dana"]]);
}

/** Plays commands one after another on one screen and draws it. */
async function picture(name, code, commands, options = {}) {
  let text = "";
  const lines = [];
  for (const args of commands) {
    const played = await play(args, code, options.turns ?? []);
    text += played.text;
    lines.push(prompt(args), ...played.lines);
  }
  writeFileSync(join(out, `${name}.svg`), svgOf(lines, COLUMNS));
  process.stdout.write(`docs/pictures/${name}.svg  ${lines.length} lines\n`);
  return text;
}

function prompt(args) {
  const words = args.map((a) => (/^[\w./,%-]+$/.test(a) ? a : `'${a}'`)).join(" ");
  return [{ text: `$ holdpoint ${words}`, bold: true }];
}

/** Runs a command at a pseudo-terminal; keys are typed when their question stands there. */
async function play(args, expected, turns = []) {
  const screen = new xterm.Terminal({ cols: COLUMNS, rows: 60, scrollback: 2000, allowProposedApi: true });
  const pty = spawn(process.execPath, [bin, ...args], {
    cols: COLUMNS,
    rows: 60,
    cwd: dir,
    env: environment(),
  });
  let raw = "";
  let turn = 0;
  let seen = 0;
  pty.onData((data) => {
    raw += data;
    screen.write(data);
    const next = turns[turn];
    if (next === undefined || !next[0].test(plain(raw.slice(seen)))) return;
    seen = raw.length;
    turn += 1;
    // What is typed before a question could be answered is thrown away by it.
    setTimeout(() => pty.write(next[1]), 300);
  });
  const code = await new Promise((done) => pty.onExit(({ exitCode }) => done(exitCode)));
  await new Promise((done) => screen.write("", done));
  if (code !== expected) throw new Error(`${args.join(" ")} ended with ${code}:\n${plain(raw)}`);
  return { text: plain(raw), lines: linesOf(screen) };
}

function plain(text) {
  // oxlint-disable-next-line no-control-regex
  return text.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\r", "");
}

/** The screen with what scrolled away, as runs of cells that look alike. */
function linesOf(screen) {
  const { buffer } = screen;
  const lines = [];
  for (let y = 0; y < buffer.active.length; y += 1) lines.push(runsOf(buffer.active.getLine(y)));
  while (lines.length > 0 && lines.at(-1).every((r) => r.text.trim() === "" && r.bg === undefined))
    lines.pop();
  return lines;
}

function runsOf(line) {
  const runs = [];
  for (let x = 0; x < line.length; x += 1) {
    const cell = line.getCell(x);
    const look = {
      ...(cell.isFgPalette() ? { fg: cell.getFgColor() } : {}),
      ...(cell.isBgPalette() ? { bg: cell.getBgColor() } : {}),
      ...(cell.isBold() ? { bold: true } : {}),
      ...(cell.isDim() ? { dim: true } : {}),
      ...(cell.isInverse() ? { inverse: true } : {}),
    };
    const last = runs.at(-1);
    const text = cell.getChars() || (cell.getWidth() === 0 ? "" : " ");
    if (last !== undefined && JSON.stringify({ ...last, text: "" }) === JSON.stringify({ ...look, text: "" }))
      last.text += text;
    else runs.push({ ...look, text });
  }
  return runs;
}

/** A shop with holds that nobody released; two of the orders behind them were paid meanwhile. */
function prepare() {
  mkdirSync(join(dir, "keys"), { recursive: true, mode: 0o700 });
  const db = new Database(join(dir, "shop.db"));
  db.exec(`
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, status TEXT, note TEXT, total NUMERIC);
    CREATE TABLE order_holds (id INTEGER PRIMARY KEY, order_id INTEGER, held_since TEXT);
    WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 20000)
      INSERT INTO orders SELECT v, 'c' || v || '@mail.example', CASE WHEN v IN (7, 8) THEN 'paid' ELSE 'pending' END, NULL,
        round(19.9 + v % 80, 2) FROM n;
    INSERT INTO order_holds SELECT id, id, CASE WHEN id <= 1200 THEN '2026-04-02' ELSE '2026-10-01' END FROM orders WHERE id <= 6000;
  `);
  db.close();
  for (const name of ["dana", "ravi"])
    execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", join(dir, "keys", name)]);
  hold([
    "init",
    ...["--target", "shop-prod", "--url", "sqlite:shop.db", "--environment", "production"].values(),
    ...["--person", "dana=keys/dana.pub", "--person", "ravi=keys/ravi.pub"].values(),
  ]);
  write("jobs/expire.sql", `${EXPIRE};\n${RELEASE}`);
  const guard = "    mask: [orders.customer]\n    sums: { orders.total: EUR }\n";
  const jobs = `jobs:
  expire-stale-holds:
    sql: jobs/expire.sql
    expect: { orders: { update: 1100..1300 }, order_holds: { delete: 1100..1300 } }
    direction: { orders.status: { to: cancelled } }
`;
  const yaml = execFileSync("cat", ["holdpoint.yaml"], { cwd: dir, encoding: "utf8" });
  write(
    "holdpoint.yaml",
    yaml.replace(/^ {4}foreign_keys: true\n/m, (l) => l + guard).replace(/^jobs:\n/m, jobs),
  );
  for (const args of [
    ["init", "-q"],
    ["config", "user.email", "dana@shop.example"],
    ["config", "user.name", "dana"],
  ])
    execFileSync("git", args, { cwd: dir });
  write(".gitignore", ".holdpoint/\nkeys/\nshop.db*\n");
  commit("a job that expires stale holds");
  hold(["env", "pin", "shop-prod", "--confirm", "shop-prod"]);
}

function commit(message) {
  execFileSync("git", ["add", "-A"], { cwd: dir });
  execFileSync("git", ["commit", "-q", "-m", message], { cwd: dir });
}

function write(path, text) {
  writeFileSync(join(dir, path), text);
}

function hold(args) {
  execFileSync(process.execPath, [bin, ...args], { cwd: dir, env: environment(), stdio: "ignore" });
}

function environment() {
  return {
    PATH: process.env.PATH ?? "",
    HOME: join(base, "home"),
    TERM: "xterm-256color",
    LANG: "C.UTF-8",
    TZ: "UTC",
  };
}
