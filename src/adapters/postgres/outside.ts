/**
 * Functions that do something outside the transaction: a rehearsal would really do it, and a rollback takes nothing of it
 * back. They are looked for in what the statements call, and in what fires when the tables are written that they name.
 *
 * | what a function is | answer |
 * | --- | --- |
 * | of an extension that works on other servers (`dblink`, `http` …) | refused |
 * | in a language that may do anything (`plpython3u`, `plperlu` …), or in C without an extension | refused |
 * | its text calls one of these, or has `COPY … PROGRAM`, `COPY` to or from a server's file, `lo_export` … | refused |
 * | its text notifies (`NOTIFY`, `pg_notify`) | told: a rollback sends nothing, and rows are written with triggers silent |
 *
 * Called by name, or through an operator, an aggregate, a cast, a view, a trigger, a rule, a default, a check, an index.
 *
 * A text that is put together while it runs tells nothing. What was fired all the same, because the statements wrote a
 * table that they do not name, is found afterwards, and then nothing is signed.
 */
import { UsageError } from "../../base/errors.js";
import { type Session, unsupported } from "./driver.js";
import { shownName } from "./names.js";
import type { Catalogue } from "./schema.js";
import type { Parser, Prepared } from "./statements.js";

/** What one function does. */
interface Outside {
  /** In words: `app.send(), which calls dblink_exec()`. */
  readonly words: string;
  readonly isRefused: boolean;
}

/** What reacts to writes of a table. */
interface Firing {
  readonly table: string;
  readonly words: string;
  readonly isRefused: boolean;
}

interface FoundFunction {
  readonly oid: string;
  readonly name: string;
  readonly shown: string;
  readonly language: string;
  readonly isTrusted: boolean;
  readonly extension: string | null;
  readonly source: string;
}

/** Extensions whose functions work elsewhere, or in another session. */
const EXTENSIONS = new Set([
  "adminpack",
  "aws_lambda",
  "aws_s3",
  "dblink",
  "http",
  "pg_background",
  "pg_net",
  "plproxy",
  "plsh",
]);

/** In a text without comments. */
const REFUSED =
  /\bdblink\w*(?=\s*\()|\bcopy\b[^;]*\bprogram\b|\bcopy\b[^;]*\b(?:to|from)\s*'|\b(?:lo_(?:import|export)|http(?:_(?:get|post|put|patch|delete|head))?|pg_(?:read|write|terminate|cancel|reload|rotate|switch|promote|logical_emit)\w*)(?=\s*\()/i;
const TOLD = /\bpg_notify(?=\s*\()|\bnotify\b/i;

const FUNCTIONS = `SELECT p.oid, p.proname, n.nspname, l.lanname, l.lanpltrusted,
    (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
     WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' LIMIT 1),
    CASE WHEN p.prokind IN ('f', 'p') THEN coalesce(nullif(p.prosrc, ''), pg_get_functiondef(p.oid))
      ELSE (SELECT string_agg(s.proname || '()', ' ') FROM pg_aggregate a JOIN pg_proc s
        ON s.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
        WHERE a.aggfnoid = p.oid) END
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
  WHERE p.oid >= 16384 ORDER BY p.oid`;

/**
 * Triggers, rules, defaults, checks (those of a column's domain too) and indexes that call these functions, by the table (a
 * partition's root) or view that they stand on. A view's query is a rule of its own.
 */
const FIRING = `SELECT coalesce(pg_partition_root(c.oid)::oid, c.oid), f.what, f.name, f.function FROM (
    SELECT 'trigger' AS what, t.tgname AS name, t.tgrelid AS relation, t.tgfoid AS function
      FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
    UNION ALL SELECT 'rule', r.rulename, r.ev_class, d.refobjid FROM pg_rewrite r
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL SELECT 'a default on', a.attname, a.attrelid, d.refobjid FROM pg_attrdef v
      JOIN pg_attribute a ON a.attrelid = v.adrelid AND a.attnum = v.adnum
      JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = v.oid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL SELECT 'constraint', k.conname, k.conrelid, d.refobjid FROM pg_constraint k
      JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL SELECT 'domain', y.typname, a.attrelid, d.refobjid FROM pg_constraint k JOIN pg_type y ON y.oid = k.contypid
      JOIN pg_attribute a ON a.atttypid = y.oid
      JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid AND d.refclassid = 'pg_proc'::regclass
    UNION ALL SELECT 'index', x.relname, i.indrelid, d.refobjid FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refclassid = 'pg_proc'::regclass
  ) AS f JOIN pg_class c ON c.oid = f.relation WHERE f.function = ANY ($1::oid[]) ORDER BY 1, 2, 3`;

/** Rules that notify by themselves, which no function tells. */
const NOTIFYING = `SELECT r.ev_class, r.rulename FROM pg_rewrite r
  WHERE r.oid >= 16384 AND r.ev_enabled IN ('O', 'A') AND pg_get_ruledef(r.oid) ~* '\\ynotify\\y' ORDER BY 1, 2`;

/** Views, and the views that each reads. */
const VIEWS = `SELECT c.oid, n.nspname, c.relname, array_to_json(ARRAY(SELECT d.refobjid::text FROM pg_rewrite r
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
      JOIN pg_class v ON v.oid = d.refobjid AND v.relkind = 'v'
    WHERE r.ev_class = c.oid AND d.refobjid <> c.oid))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND c.oid >= 16384`;

/** What stands in a statement without being called by name, and where it is a cast, without standing there at all. */
const OPERATORS = `SELECT oprname, oprcode::oid FROM pg_operator WHERE oprcode::oid = ANY ($1::oid[])`;
const CASTS = `SELECT format('%s to %s', format_type(castsource, NULL), format_type(casttarget, NULL)), castfunc
  FROM pg_cast WHERE castfunc = ANY ($1::oid[])`;

const EVENT_TRIGGERS = `SELECT evtname, evtfoid FROM pg_event_trigger WHERE evtenabled IN ('O', 'A') AND evtfoid = ANY ($1::oid[])`;

/** Everything of one database that works outside the transaction. */
export class OutsideEffects {
  readonly #catalogue: Catalogue;
  readonly #byName: ReadonlyMap<string, Outside>;
  readonly #firing: readonly Firing[];
  readonly #onSchema: readonly Firing[];
  readonly #views: readonly View[];
  readonly #operators: ReadonlyMap<string, Outside>;

  private constructor(
    catalogue: Catalogue,
    byName: ReadonlyMap<string, Outside>,
    found: {
      readonly firing: readonly Firing[];
      readonly onSchema: readonly Firing[];
      readonly views: readonly View[];
      readonly operators: ReadonlyMap<string, Outside>;
    },
  ) {
    this.#catalogue = catalogue;
    this.#byName = byName;
    this.#firing = found.firing;
    this.#onSchema = found.onSchema;
    this.#views = found.views;
    this.#operators = found.operators;
  }

  /** Looks for them. Before the statements run. */
  static async read(session: Session, catalogue: Catalogue): Promise<OutsideEffects> {
    const functions = await readFunctions(session);
    const found = outsideOf(functions);
    const byOid = new Map(functions.flatMap((f) => pair(f.oid, found.get(f.oid))));
    const oids = [...byOid.keys()];
    const names = new Map(catalogue.tables.map((t) => [t.oid, t.name]));
    const notifying = (await session.rows(NOTIFYING)).flatMap(([table, rule]): Firing[] => {
      const on = names.get(table ?? "");
      return on === undefined
        ? []
        : [{ table: on, words: `rule ${rule ?? ""} of ${on} notifies`, isRefused: false }];
    });
    const byName = new Map(functions.flatMap((f) => pair(f.name, found.get(f.oid))));
    if (oids.length === 0)
      return new OutsideEffects(catalogue, byName, {
        firing: notifying,
        onSchema: [],
        views: [],
        operators: new Map(),
      });
    const views = await readViews(session);
    for (const view of views) names.set(view.oid, view.name);
    const firing = (await session.rows(FIRING, oids)).flatMap(([table, what, name, fn]) => {
      const on = names.get(table ?? "");
      const does = byOid.get(fn ?? "");
      if (on === undefined || does === undefined) return [];
      return [
        { table: on, words: `${what ?? ""} ${name ?? ""} of ${on} calls ${does.words}`, ...refused(does) },
      ];
    });
    const onSchema = (await session.rows(EVENT_TRIGGERS, oids)).flatMap(([name, fn]) => {
      const does = byOid.get(fn ?? "");
      return does === undefined
        ? []
        : [{ table: "", words: `event trigger ${name ?? ""} calls ${does.words}`, ...refused(does) }];
    });
    const casts = (await session.rows(CASTS, oids)).flatMap(([name, fn]) => {
      const does = byOid.get(fn ?? "");
      return does === undefined
        ? []
        : [{ table: "", words: `the cast from ${name ?? ""} calls ${does.words}`, ...refused(does) }];
    });
    const operators = new Map(
      (await session.rows(OPERATORS, oids)).flatMap(([name, fn]) => pair(name ?? "", byOid.get(fn ?? ""))),
    );
    return new OutsideEffects(catalogue, byName, {
      firing: [...firing, ...notifying],
      onSchema: [...onSchema, ...casts],
      views,
      operators,
    });
  }

  /**
   * Before a statement runs.
   * @throws UsageError ERR_JOB_STATEMENT for a function that it calls, TargetError ERR_TARGET_UNSUPPORTED for what
   * would fire on a table that it names or that follows it by a reference.
   */
  refuseBefore(parser: Parser, { text, line }: Prepared): void {
    const { words, called } = wordsOf(text, parser);
    for (const word of called) {
      const does = this.#byName.get(word);
      if (does?.isRefused === true) throw calls(line, does);
    }
    for (const [operator, does] of this.#operators)
      if (does.isRefused && text.includes(operator))
        throw calls(line, { ...does, words: `operator ${operator}, which is ${does.words},` });
    this.#refuse(this.#following(words), "the statement was not run");
  }

  /**
   * Before anything is made, scratch paper of ours included: an event trigger may fire for that, too; and a cast may happen
   * anywhere.
   */
  refuseOnMaking(): void {
    const event = this.#onSchema.find((f) => f.isRefused);
    if (event !== undefined) throw fires(event, "nothing was run");
  }

  /** After the statements ran: tables that they wrote without naming them. */
  refuseAfter(written: ReadonlySet<string>): void {
    this.#refuse(written, "it has fired in this rehearsal, and what it did outside is done");
  }

  /** What a plan tells of tables whose rows change: what is silent when they are written. */
  notices(written: ReadonlySet<string>, isScript: boolean): readonly string[] {
    const sent = isScript
      ? "it is sent when the script runs"
      : "rows are written with triggers silent, so nothing is sent";
    return this.#firing.filter((f) => !f.isRefused && written.has(f.table)).map((f) => `${f.words}: ${sent}`);
  }

  #refuse(tables: ReadonlySet<string>, what: string): void {
    const found = this.#firing.find((f) => f.isRefused && tables.has(f.table));
    if (found !== undefined) throw fires(found, what);
  }

  /**
   * Tables and views that these words name, in whatever schema, those that a reference makes follow them, and the views
   * that a view reads.
   */
  #following(words: ReadonlySet<string>): ReadonlySet<string> {
    const tables = new Set(
      [...this.#catalogue.tables, ...this.#views].flatMap((t) => (words.has(t.relation) ? [t.name] : [])),
    );
    for (const view of this.#views)
      if (tables.has(view.name))
        for (const read of view.reads)
          for (const other of this.#views) if (other.oid === read) tables.add(other.name);
    for (let before = -1; before < tables.size;) {
      before = tables.size;
      for (const key of this.#catalogue.foreignKeys)
        if (key.acts && tables.has(key.parent)) tables.add(key.child);
    }
    return tables;
  }
}

/** A view, with all views that it reads, directly or not. */
interface View {
  readonly oid: string;
  readonly name: string;
  readonly relation: string;
  readonly reads: ReadonlySet<string>;
}

async function readViews(session: Session): Promise<readonly View[]> {
  const rows = (await session.rows(VIEWS)).map(([oid, schema, relation, reads]) => {
    const list: unknown = JSON.parse(reads ?? "[]");
    const direct = Array.isArray(list) ? list.map(String) : [];
    return {
      oid: oid ?? "",
      name: shownName(schema ?? "", relation ?? ""),
      relation: relation ?? "",
      direct,
    };
  });
  const direct = new Map(rows.map((v) => [v.oid, v.direct]));
  return rows.map(({ oid, name, relation }) => {
    const reads = new Set(direct.get(oid));
    // A set that grows while it is gone through: each view is looked at once.
    for (const read of reads) for (const further of direct.get(read) ?? []) reads.add(further);
    return { oid, name, relation, reads };
  });
}

async function readFunctions(session: Session): Promise<readonly FoundFunction[]> {
  return (await session.rows(FUNCTIONS)).map(([oid, name, schema, language, trusted, extension, source]) => ({
    oid: oid ?? "",
    name: name ?? "",
    shown: `${shownName(schema ?? "", name ?? "")}()`,
    language: language ?? "",
    isTrusted: trusted === "t",
    extension: extension ?? null,
    source: withoutComments(source ?? ""),
  }));
}

/** By oid. A function that names another is as outside as that one. */
function outsideOf(functions: readonly FoundFunction[]): ReadonlyMap<string, Outside> {
  const found = new Map<string, Outside>();
  const named = new Map<string, Outside>();
  const note = (f: FoundFunction, does: Outside): void => {
    found.set(f.oid, does);
    const known = named.get(f.name);
    if (known === undefined || !known.isRefused) named.set(f.name, does);
  };
  for (const f of functions) {
    const does = itself(f);
    if (does !== null) note(f, does);
  }
  for (let before = -1; before < found.size;) {
    before = found.size;
    for (const f of functions) {
      if (f.extension !== null || found.get(f.oid)?.isRefused === true) continue;
      const callee = [...f.source.matchAll(/[\w$]+(?=\s*\()/g)].flatMap(([word]) =>
        pair(word, named.get(word.toLowerCase())),
      );
      const [via] = [...callee.filter(([, d]) => d.isRefused), ...callee];
      if (via !== undefined && (via[1].isRefused || !found.has(f.oid)))
        note(f, { words: `${f.shown}, which calls ${via[1].words}`, isRefused: via[1].isRefused });
    }
  }
  return found;
}

function itself(f: FoundFunction): Outside | null {
  const is = (why: string, isRefused = true): Outside => ({ words: `${f.shown}${why}`, isRefused });
  if (f.extension !== null) return EXTENSIONS.has(f.extension) ? is(` of extension ${f.extension}`) : null;
  if (f.language === "c") return is(", which is written in C");
  if (!f.isTrusted && f.language !== "internal") return is(`, whose language ${f.language} may do anything`);
  const outside = REFUSED.exec(f.source)?.[0];
  if (outside !== undefined) return is(`, which has ${short(outside)}`);
  const told = TOLD.exec(f.source)?.[0];
  return told === undefined ? null : is(`, which has ${short(told)}`, false);
}

function short(text: string): string {
  return text.replaceAll(/\s+/g, " ").slice(0, 40);
}

function withoutComments(source: string): string {
  return source.replaceAll(/--[^\n]*/g, " ").replaceAll(/\/\*[\s\S]*?\*\//g, " ");
}

/** All words of a statement, those of a DO block's text too, and which of them are called. */
function wordsOf(
  text: string,
  parser: Parser,
): { readonly words: ReadonlySet<string>; readonly called: ReadonlySet<string> } {
  const [words, called] = [new Set<string>(), new Set<string>()];
  const tokens = parser.scan(text).map((t) => t.text);
  tokens.forEach((token, i) => {
    const quoted = token.startsWith('"') ? [token.slice(1, -1).replaceAll('""', '"')] : null;
    const found = quoted ?? [...token.matchAll(/[\w$]+/g)].map(([word]) => word.toLowerCase());
    for (const word of found) words.add(word);
    if (tokens[i + 1] === "(") for (const word of found) called.add(word);
    for (const [word] of token.matchAll(/[\w$]+(?=\s*\()/g)) called.add(word.toLowerCase());
  });
  return { words, called };
}

function pair<T>(name: string, value: T | undefined): readonly (readonly [string, T])[] {
  return value === undefined ? [] : [[name, value]];
}

function refused({ isRefused }: Outside): { readonly isRefused: boolean } {
  return { isRefused };
}

const WHY =
  "its effect is outside the transaction: a rehearsal would really have it, and no rollback takes it back";

function calls(line: number, does: Outside): UsageError {
  return new UsageError({
    code: "ERR_JOB_STATEMENT",
    message: `line ${line}: ${does.words} is not allowed in a job`,
    why: WHY,
    next: [{ actor: "requester", text: "take the call out of the job's file" }],
  });
}

function fires(firing: Firing, what: string): Error {
  return unsupported(firing.words, `${WHY}; ${what}`, "Run this change with your migration tool.");
}
