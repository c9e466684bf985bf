/**
 * Every `console` block of README and guides is typed into a shell, page by page, in a folder of its own. `pl_…` and `rn_…` stand for the
 * newest plan and run; `# ends with N` after a command says which exit code it has. Lines that need a person at a terminal, and blocks
 * about this repository, are skipped and named.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, test } from "@jest/globals";
import { BIN } from "../support/project.js";

const ROOT = resolve(import.meta.dirname, "../../..");

const PAGES = ["README.md", "docs/guide-developer.md", "docs/guide-approver.md", "docs/guide-ci.md"];

/** Why a command is not run here; undefined when it is. */
function skipped(command: string): string | undefined {
  if (/\bnpm\b/.test(command)) return "builds or installs this repository";
  if (command.startsWith("alias ")) return "the shell's own alias; the program is on the path here";
  if (/^holdpoint approve (?!.*--prepared?\b)/.test(command))
    return "needs a person at a terminal (test/cli/terminal.test.ts)";
  return /\b[A-Z]{2,}_?[A-Z]*\b(?=\s|$)/.test(command.replace(/OPS-\d+/g, "").replace(/"[^"]*"/g, ""))
    ? "names a placeholder"
    : undefined;
}

interface Line {
  readonly command: string;
  readonly ends: number;
}

/** The commands of a page's console blocks; a line that does not begin with `$` goes on with the one before. */
function commandsOf(page: string): Line[] {
  const text = readFileSync(join(ROOT, page), "utf8");
  const blocks = [...text.matchAll(/^```console\n([^]*?)^```$/gm)].map((m) => m[1] ?? "");
  return blocks.flatMap((block) =>
    block
      .split(/^\$ /m)
      .filter((c) => c.trim() !== "")
      .map((c) => {
        const ends = Number(/ {2,}# ends with (\d+)/.exec(c)?.[1] ?? 0);
        return { command: c.replace(/ {2,}#.*$/gm, "").trim(), ends };
      }),
  );
}

/** The newest id of a kind, for `pl_…` and `rn_…`. */
const NEWEST = `
  const { execFileSync } = require("node:child_process");
  const { result } = JSON.parse(execFileSync(process.execPath, [${JSON.stringify(BIN)}, "status", "--json"], { encoding: "utf8" }));
  console.log(process.argv[1] === "pl" ? result.plans[0].plan : result.runs[0].run);
`;

/** \`sqlite3 FILE SQL\`, where the machine that runs the tests has none. */
const SQLITE3 = `
  const Database = require(${JSON.stringify(join(ROOT, "node_modules/better-sqlite3"))});
  const db = new Database(process.argv[1]);
  db.exec(process.argv[2]);
  db.close();
`;

function script(lines: readonly Line[]): string {
  const typed = lines.map(({ command, ends }) => {
    const filled = command.replaceAll("pl_…", '"$(newest pl)"').replaceAll("rn_…", '"$(newest rn)"');
    return `ended=0; { ${filled}\n} || ended=$?; [ $ended = ${ends} ] || { echo ${quoted(`${command}: ended with`)} $ended; exit 9; }`;
  });
  return typed.join("\n");
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

describe.each(PAGES)("%s", (page) => {
  const lines = commandsOf(page);
  const left = lines.filter((l) => skipped(l.command) !== undefined);
  for (const l of left)
    test.skip(`${l.command.split("\n")[0] ?? ""}: ${skipped(l.command) ?? ""}`, () => undefined);

  test("every other command ends as the page says", () => {
    const dir = mkdtempSync(join(tmpdir(), "holdpoint-docs-"));
    const shim = (name: string, body: string): void => {
      writeFileSync(join(dir, "tools", name), body);
      chmodSync(join(dir, "tools", name), 0o755);
    };
    try {
      mkdirSync(join(dir, "tools"));
      mkdirSync(join(dir, "work"));
      shim("holdpoint", `#!/bin/sh\nexec "${process.execPath}" "${BIN}" "$@"\n`);
      shim("newest", `#!/bin/sh\nexec "${process.execPath}" -e ${quoted(NEWEST)} "$@"\n`);
      shim("sqlite3", `#!/bin/sh\nexec "${process.execPath}" -e ${quoted(SQLITE3)} "$@"\n`);
      const done = spawnSync("bash", ["-c", script(lines.filter((l) => skipped(l.command) === undefined))], {
        cwd: join(dir, "work"),
        encoding: "utf8",
        env: {
          PATH: `${join(dir, "tools")}:${process.env["PATH"] ?? ""}`,
          HOME: dir,
          TZ: "UTC",
          LANG: "C.UTF-8",
        },
      });
      expect({ status: done.status, said: done.status === 0 ? "" : done.stdout + done.stderr }).toEqual({
        status: 0,
        said: "",
      });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
