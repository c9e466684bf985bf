/** Jobs as they are found and run: names and files, pinned copies, and the child that has nothing of ours. */
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "@jest/globals";
import Database from "better-sqlite3";
import { canonical } from "../../src/base/canonical.js";
import { digestOf } from "../../src/base/digest.js";
import { parseConfig } from "../../src/config/config.js";
import { baseEnvironment, escapeControls } from "../../src/jobs/child.js";
import { type JobRequest, type JobSetting, type PreparedJob, resolveJob } from "../../src/jobs/job.js";
import { refusal, refusalLine } from "../support/refusal.js";
import { inFolder } from "../support/temporary.js";

const CONNECTOR = pathToFileURL(
  join(import.meta.dirname, "../../src/adapters/sqlite/job-connection.js"),
).href;

/** A folder with a project, a database, and a way to prepare and run jobs in it. */
interface Place {
  readonly folder: string;
  readonly database: string;
  readonly printed: () => string;
  readonly write: (path: string, content: string) => string;
  readonly prepare: (
    job: string | readonly string[],
    given?: readonly string[],
    more?: Partial<JobSetting>,
  ) => Promise<PreparedJob>;
  readonly run: (job: PreparedJob) => Promise<void>;
  readonly rows: (sql: string) => unknown;
}

const CONFIG = `targets:
  t: { url: 'sqlite:t.db' }
jobs:
  purge:
    sql: jobs/purge.sql
    params: { days: { type: integer, minimum: 30 } }
    scope: [a]
  twin-1: { sql: jobs/twin.sql }
  twin-2: { sql: jobs/twin.sql }
  level:
    module: jobs/level.js
    params: { to: { type: integer } }
  sweep:
    command: [./sweep.sh, "{below}", "{database}", "{unknown}"]
    params: { below: { type: integer, default: 2 } }
    timeout: 1s
`;

function inPlace(use: (place: Place) => Promise<void>): Promise<void> {
  return inFolder(async (folder) => {
    const database = join(folder, "copy.db");
    const db = new Database(database);
    db.exec("CREATE TABLE a(id INTEGER PRIMARY KEY, x); INSERT INTO a(x) VALUES (1), (2), (3)");
    db.exec("CREATE TABLE b(a_id INTEGER REFERENCES a(id) ON DELETE CASCADE); INSERT INTO b VALUES (1)");
    db.close();
    for (const name of ["jobs", "scratch"]) mkdirSync(join(folder, name), { mode: 0o700 });
    let printed = "";
    const setting: JobSetting = {
      cwd: folder,
      scratch: join(folder, "scratch"),
      environment: {
        PATH: process.env["PATH"],
        LANG: "C.UTF-8",
        SSH_AUTH_SOCK: "/agent",
        DATABASE_URL: "sqlite:/real.db",
        HOME: "/home/dana",
      },
      node: process.execPath,
      connection: { connector: CONNECTOR, settings: { foreign_keys: "on" } },
      output: (text) => void (printed += text),
    };
    const book = parseConfig(CONFIG, join(folder, "holdpoint.yaml"));
    await use({
      folder,
      database,
      printed: () => printed,
      write: (path, content) => {
        writeFileSync(join(folder, path), content, { mode: 0o700 });
        return path;
      },
      prepare: (job, given = [], more = {}) => {
        const request: JobRequest =
          typeof job === "string" ? { kind: "job", job } : { kind: "command", argv: job };
        return resolveJob(book, request, given, { ...setting, ...more });
      },
      run: async ({ runnable }) => {
        if (runnable.kind !== "program") throw new Error("not a program");
        await runnable.run({ path: database, url: `sqlite:${database}` });
      },
      rows: (sql) => {
        const read = new Database(database, { readonly: true });
        try {
          return read.prepare(sql).pluck().all();
        } finally {
          read.close();
        }
      },
    });
  });
}

describe("which job", () => {
  test("a declared name has its scope and typed parameters", () =>
    inPlace(async ({ write, prepare }) => {
      const sql = "DELETE FROM a WHERE x < :days;";
      write("jobs/purge.sql", sql);
      const job = await prepare("purge", ["days=40"]);
      expect(job).toMatchObject({
        name: "purge",
        kind: "sql",
        path: "jobs/purge.sql",
        source: digestOf(sql),
        parameters: { days: "40" },
        arguments: [],
        scope: ["a"],
        expect: null,
        selective: true,
      });
      expect(job.runnable).toEqual({
        kind: "sql",
        statements: [{ text: sql.slice(0, -1), line: 1, values: { days: 40n } }],
      });
    }));

  test("its file by another name is the same declared job: the scope holds", () =>
    inPlace(async ({ write, prepare }) => {
      write("jobs/purge.sql", "DELETE FROM a WHERE x < :days;");
      expect(await prepare("./jobs/../jobs/purge.sql", ["days=40"])).toMatchObject({
        name: "purge",
        scope: ["a"],
      });
      expect((await refusal(() => prepare("jobs/purge.sql", ["days=29"]))).code).toBe("ERR_JOB_PARAMETER");
    }));

  test("a bare file never has a declared job's name", () =>
    inPlace(async ({ write, prepare }) => {
      write("purge.sql", "DELETE FROM a;");
      expect(await prepare("purge.sql")).toMatchObject({ name: "purge.sql", scope: null, selective: false });
    }));

  test.each<[string, string, string]>([
    [
      "a name nobody declared",
      "purg",
      'ERR_JOB_UNKNOWN there is no job "purg" | it is no declared name, and no file',
    ],
    ["a blank", " ", "ERR_JOB_UNKNOWN there is no job"],
    ["an object's own word", "constructor", 'there is no job "constructor"'],
    ["a file that is not there", "jobs/none.sql", "ERR_JOB_UNKNOWN there is no file jobs/none.sql"],
    ["a file of two declared jobs", "jobs/twin.sql", "twin-1, twin-2 are declared with this file"],
    ["a folder", "folder.sql", "ERR_JOB_INVALID folder.sql is no regular file"],
    ["an empty file", "empty.sql", "ERR_JOB_INVALID empty.sql is empty"],
  ])("refused: %s", (_, job, wanted) =>
    inPlace(async ({ folder, write, prepare }) => {
      mkdirSync(join(folder, "folder.sql"));
      write("empty.sql", "");
      write("jobs/twin.sql", "SELECT 1");
      expect(await refusalLine(() => prepare(job))).toContain(wanted);
    }),
  );
});

describe("a command", () => {
  test("runs on the copy, addressed by the environment and by placeholders", () =>
    inPlace(async ({ write, prepare, run, rows }) => {
      const script =
        '#!/bin/sh\n[ "$2" = "$HOLDPOINT_DATABASE_PATH" ] && [ "$3" = "{unknown}" ] && [ "$HOLDPOINT_PARAM_below" = 2 ] || exit 3\nsqlite3 "$2" "DELETE FROM a WHERE x < $1"\n';
      write("sweep.sh", script);
      const job = await prepare("sweep");
      expect(job).toMatchObject({
        name: "sweep",
        kind: "command",
        source: digestOf(script),
        path: "./sweep.sh",
        arguments: ["./sweep.sh", "{below}", "{database}", "{unknown}"],
        parameters: { below: "2" },
      });
      await run(job);
      expect(rows("SELECT x FROM a")).toEqual([2, 3]);
    }));

  test("that is declared takes the parameters that it declares, and no others", () =>
    inPlace(async ({ write, prepare }) => {
      write("sweep.sh", "#!/bin/sh\n");
      expect(await refusalLine(() => prepare("sweep", ["blow=1"]))).toContain("sweep has no parameter blow");
    }));

  test("has an environment made from nothing", () =>
    inPlace(async ({ folder, prepare, run, printed }) => {
      await run(await prepare(["env"]));
      const variables = Object.fromEntries(
        printed()
          .trim()
          .split("\n")
          .map((l) => l.split(/=(.*)/s).slice(0, 2)),
      );
      expect(Object.keys(variables).sort()).toEqual([
        "HOLDPOINT_DATABASE_PATH",
        "HOLDPOINT_DATABASE_URL",
        "HOME",
        "LANG",
        "PATH",
        "TMPDIR",
        "TZ",
      ]);
      expect(variables).toMatchObject({ TZ: "UTC", HOLDPOINT_DATABASE_PATH: join(folder, "copy.db") });
      expect(variables["HOME"]).toContain(join(folder, "scratch"));
    }));

  test("has an empty home, an empty folder to work in, and nothing on standard input", () =>
    inPlace(async ({ prepare, run, printed }) => {
      await run(
        await prepare(["sh", "-c", 'ls -A "$HOME" . ; ls -ld "$HOME" . | cut -c1-10; cat; echo end']),
      );
      expect(printed().replaceAll(/\/\S+home:/g, "HOME:")).toBe(".:\n\nHOME:\ndrwx------\ndrwx------\nend\n");
    }));

  test("is searched in absolute folders of PATH only", () => {
    const folders = { home: "/h", tmp: "/t" };
    expect(baseEnvironment({ PATH: ".:/usr/bin::bin:/bin" }, folders)["PATH"]).toBe("/usr/bin:/bin");
    expect(baseEnvironment({}, folders)).toMatchObject({
      LANG: "C.UTF-8",
      PATH: "/usr/local/bin:/usr/bin:/bin",
    });
  });

  test("a script that is overwritten in place while it runs: the pinned copy goes on, and the swap is told (S27)", () =>
    inPlace(async ({ folder, write, prepare, run, rows }) => {
      const script = `#!/bin/bash\ncp "${folder}/swap.sh" "${folder}/clean.sh"\nsqlite3 "$HOLDPOINT_DATABASE_PATH" "DELETE FROM a WHERE x = 1"\n`;
      write("clean.sh", script);
      write(
        "swap.sh",
        `#!/bin/bash\n\n\n${"#".repeat(script.length)}\nsqlite3 "$HOLDPOINT_DATABASE_PATH" "DELETE FROM a"\n`,
      );
      for (const argv of [["./clean.sh"], ["bash", "clean.sh"], ["/bin/bash", "-e", "clean.sh"]]) {
        write("clean.sh", script);
        const job = await prepare(argv);
        expect(job.source).toBe(digestOf(script));
        expect(await job.swapped()).toBeNull();
        await run(job);
        expect(rows("SELECT x FROM a")).toEqual([2, 3]);
        expect(await job.swapped()).toBe(
          `${argv.at(-1) ?? ""} was changed while it ran; the copy taken before ran`,
        );
      }
    }));

  test("a file swapped between reading and running changes nothing either", () =>
    inPlace(async ({ write, prepare, run, printed }) => {
      write("say.sh", "#!/bin/sh\necho one\n");
      const job = await prepare(["./say.sh"]);
      write("say.sh", "#!/bin/sh\necho two\n");
      await run(job);
      await run(job);
      expect(printed()).toBe("one\none\n");
    }));

  test("a private copy that was changed does not run", () =>
    inPlace(async ({ write, prepare, run }) => {
      write("self.sh", '#!/bin/sh\nchmod u+w "$0"; echo "# more" >> "$0"\n');
      const job = await prepare(["./self.sh"]);
      await run(job);
      expect(await refusalLine(() => run(job))).toContain("the private copy of ./self.sh was changed");
    }));

  test("without a file of its own is pinned by its words", () =>
    inPlace(async ({ prepare }) => {
      const argv = ["sqlite3", "{database}", "DELETE FROM a"];
      const job = await prepare(argv);
      expect([job.source, job.path, job.name]).toEqual([digestOf(canonical(argv)), null, "command:sqlite3"]);
      expect(await job.swapped()).toBeNull();
    }));

  test.each<[string, readonly string[], string]>([
    [
      "another status",
      ["sh", "-c", "echo first; echo broken >&2; exit 3"],
      "job command:sh ended with exit status 3 | it last printed: broken",
    ],
    ["a status and no word", ["false"], "job command:false ended with exit status 1 | it printed nothing"],
    ["a signal", ["sh", "-c", "kill -TERM $$"], "job command:sh was ended by SIGTERM"],
  ])("that ends with %s fails the plan", (_, argv, wanted) =>
    inPlace(async ({ prepare, run }) => {
      const line = await refusalLine(async () => run(await prepare(argv)));
      expect(line).toContain("ERR_JOB_FAILED");
      expect(line).toContain(wanted);
    }),
  );

  test("that takes too long is stopped with all that it started", () =>
    inPlace(async ({ folder, write, prepare, run }) => {
      write("sweep.sh", `#!/bin/sh\nsleep 60 &\necho $! > "${folder}/pid"\nsleep 60\n`);
      expect(await refusalLine(async () => run(await prepare("sweep")))).toContain(
        "job sweep ran longer than 1s and was stopped",
      );
      const state = `/proc/${readFileSync(join(folder, "pid"), "utf8").trim()}/stat`;
      // Gone, or a zombie that nobody has waited for yet.
      expect(existsSync(state) && /^ [^Z]/.test(readFileSync(state, "utf8").replace(/^.*\)/, ""))).toBe(
        false,
      );
    }));

  test("ends with what it left in the background", () =>
    inPlace(async ({ prepare, run }) => {
      const began = Date.now();
      await run(await prepare(["sh", "-c", "sleep 60 & exit 0"]));
      expect(Date.now() - began).toBeLessThan(10_000);
    }));

  test("is stopped by our own signal", () =>
    inPlace(async ({ prepare, run }) => {
      const stop = new AbortController();
      const job = await prepare(["sleep", "60"], [], { signal: stop.signal });
      const running = run(job);
      stop.abort(new Error("interrupted"));
      await expect(running).rejects.toThrow("interrupted");
    }));

  test.each<[string, readonly string[], string]>([
    [
      "a program that is not on PATH",
      ["no-such-program"],
      "ERR_JOB_UNKNOWN there is no program no-such-program on PATH",
    ],
    ["a script that is not there", ["./none.sh"], "ERR_JOB_UNKNOWN there is no file ./none.sh"],
    ["no program", [""], "ERR_JOB_UNKNOWN the command has no program"],
  ])("refused: %s", (_, argv, wanted) =>
    inPlace(async ({ prepare }) => {
      expect(await refusalLine(() => prepare(argv))).toContain(wanted);
    }),
  );

  test("cannot drive the terminal: control characters of its output are made visible", () =>
    inPlace(async ({ prepare, run, printed }) => {
      await run(await prepare(["printf", "\\033[2Jgone\\r\\302\\205\\342\\200\\256ok\\n"]));
      expect(printed()).toBe("\\x1b[2Jgone\\x0d\\x85\\u202eok\n");
      expect(escapeControls("tab\t and line\n stay, größe too")).toBe("tab\t and line\n stay, größe too");
    }));
});

describe("a module", () => {
  const LEVEL = `export default async function ({ db, params, log }) {
  for (const row of db.all("SELECT id, x FROM a WHERE x > :x", { x: 1 })) {
    log("row " + row.id + " " + typeof row.id);
    db.run("UPDATE a SET x = :x WHERE id = :id", { x: params.to, id: row.id });
  }
}`;

  test("gets a guarded connection, typed parameters and a log", () =>
    inPlace(async ({ write, prepare, run, rows, printed }) => {
      write("jobs/level.js", LEVEL);
      const job = await prepare("level", ["to=9223372036854775807"]);
      expect(job).toMatchObject({
        name: "level",
        kind: "module",
        source: digestOf(LEVEL),
        parameters: { to: "9223372036854775807" },
      });
      await run(job);
      expect(rows("SELECT CAST(x AS TEXT) FROM a")).toEqual([
        "1",
        "9223372036854775807",
        "9223372036854775807",
      ]);
      expect(printed()).toBe("row 2 bigint\nrow 3 bigint\n");
    }));

  test("may declare its parameters itself", () =>
    inPlace(async ({ write, prepare, run, rows }) => {
      write(
        "own.mjs",
        'export default { params: { to: { type: "integer", minimum: 5n }, on: { type: "boolean", default: true } },\n  async run({ db, params }) { await null; if (params.on === true) db.run("UPDATE a SET x = :to", { to: params.to }); } };',
      );
      const job = await prepare("own.mjs", ["to=7"]);
      expect(job.parameters).toEqual({ on: "true", to: "7" });
      await run(job);
      expect(rows("SELECT DISTINCT x FROM a")).toEqual([7]);
      expect(await refusalLine(() => prepare("own.mjs", ["to=4"]))).toContain(
        "it wants a whole number like 30, at least 5",
      );
      expect(await refusalLine(() => prepare("own.mjs", []))).toContain("own.mjs needs to");
    }));

  test("in TypeScript runs too", () =>
    inPlace(async ({ write, prepare, run, rows }) => {
      write(
        "typed.ts",
        'interface Row { readonly x: bigint }\nexport default async ({ db }: { db: { run(sql: string): unknown; get(sql: string): Row | undefined } }): Promise<void> => {\n  const row: Row | undefined = db.get("SELECT x FROM a WHERE id = 2");\n  if (row?.x === 2n) db.run("DELETE FROM a WHERE id = 2");\n};\n',
      );
      await run(await prepare("typed.ts"));
      expect(rows("SELECT x FROM a")).toEqual([1, 3]);
    }));

  const old = "typescript" in process.features && process.features.typescript !== false ? test.skip : test;
  old("in TypeScript is refused where nothing reads it", () =>
    inPlace(async ({ write, prepare }) => {
      write("typed.ts", "export default (): void => {};");
      const line = await refusalLine(() => prepare("typed.ts", [], { esbuildFrom: [] }));
      expect(line).toContain("ERR_JOB_INVALID typed.ts is TypeScript, and nothing here can read it");
    }),
  );

  test("has the target's foreign key setting", () =>
    inPlace(async ({ write, prepare, run, rows }) => {
      write("del.js", 'export default ({ db }) => { db.run("DELETE FROM a WHERE id = 1"); };');
      await run(await prepare("del.js"));
      expect(rows("SELECT count(*) FROM b")).toEqual([0]);
    }));

  test("is one transaction: a throw keeps nothing", () =>
    inPlace(async ({ write, prepare, run, rows }) => {
      write("bad.js", 'export default ({ db }) => { db.run("DELETE FROM a"); throw new Error("no luck"); };');
      const line = await refusalLine(async () => run(await prepare("bad.js")));
      expect(line).toContain("ERR_JOB_FAILED job bad.js ended with exit status 1");
      expect(line).toMatch(/Error: no luck\n {2}at .*bad\.js:1:\d+/);
      expect(line).not.toContain("module-host");
      expect(rows("SELECT count(*) FROM a")).toEqual([3]);
    }));

  test.each<[string, string, string]>([
    ["a transaction word", 'db.run("COMMIT")', "COMMIT is refused"],
    ["two statements", 'db.run("DELETE FROM a; DELETE FROM b")', "more than one statement"],
    ["PRAGMA", 'db.all("PRAGMA foreign_keys = OFF")', "PRAGMA is refused"],
    ["a positional parameter", 'db.prepare("DELETE FROM a WHERE x = ?")', "name it, as in :days"],
    [
      "an undefined value",
      'db.run("DELETE FROM a WHERE x = :x", { x: undefined })',
      "the value of x is undefined",
    ],
    [
      "a number that was rounded",
      'db.run("DELETE FROM a WHERE x = :x", { x: 2 ** 60 })',
      "too large for a number: use a bigint",
    ],
    ["leaving early", "process.exit(0)", "ended before its run was over"],
    ["never ending its promise", "await new Promise(() => {})", "exit status 13"],
    ["an import of a neighbour", 'await import("./level.js")', "Cannot find module"],
  ])("refused: %s", (_, code, wanted) =>
    inPlace(async ({ write, prepare, run, rows }) => {
      write("x.js", `export default async ({ db }) => { ${code}; };`);
      const e = await refusal(async () => run(await prepare("x.js")));
      expect(e.code).toBe("ERR_JOB_FAILED");
      expect(`${e.message} ${e.why ?? ""}`).toContain(wanted);
      expect(rows("SELECT count(*) FROM a")).toEqual([3]);
    }),
  );

  test.each<[string, string, string]>([
    ["no default export", "export const run = 1;", "the module exports no job"],
    ["broken text", "export default (", "SyntaxError"],
    [
      "a declaration that is none",
      'export default { params: { a: { type: "int" } }, run() {} };',
      "params.a.type wants one of integer",
    ],
    [
      "a name that is none",
      'export default { params: { "a-b": { type: "text" } }, run() {} };',
      '"a-b" is no name of a parameter',
    ],
    [
      "declarations in a list",
      "export default { params: [], run() {} };",
      "params wants an object of declarations",
    ],
  ])("refused before it runs: %s", (_, code, wanted) =>
    inPlace(async ({ write, prepare }) => {
      write("x.js", code);
      expect(await refusalLine(() => prepare("x.js"))).toContain(wanted);
    }),
  );

  test("refused: parameters declared in both places", () =>
    inPlace(async ({ write, prepare }) => {
      write("jobs/level.js", 'export default { params: { to: { type: "text" } }, run() {} };');
      expect(await refusalLine(() => prepare("level", ["to=1"]))).toContain(
        "the parameters of level are declared twice",
      );
    }));

  test("has no variable, key or address of ours", () =>
    inPlace(async ({ write, prepare, run, printed }) => {
      write("env.js", "export default ({ log }) => log(Object.keys(process.env).sort().join());");
      await run(await prepare("env.js"));
      expect(printed()).toBe("HOLDPOINT_DATABASE_PATH,HOLDPOINT_DATABASE_URL,HOME,LANG,PATH,TMPDIR,TZ\n");
    }));

  test("runs from its private copy, whatever happens to its file", () =>
    inPlace(async ({ folder, write, prepare, run, printed }) => {
      write("x.js", 'export default ({ log }) => log("one");');
      const job = await prepare("x.js");
      appendFileSync(join(folder, "x.js"), 'throw new Error("swapped");');
      chmodSync(join(folder, "x.js"), 0o000);
      await run(job);
      expect(printed()).toBe("one\n");
      expect(await job.swapped()).toMatch(/x\.js (was changed while it ran|could not be read again)/);
    }));
});
