/**
 * Stored screens: `test/golden/COMMAND.txt`, made of real commands on a real project. Each shot is one command line, drawn
 * at four widths, each of them through another channel, and once in colour at a terminal; what differs is laid down once for
 * each width. A command that changes something is taken back between its drawings, so that all of them show the same moment.
 */
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { documentSchema } from "../../src/render/documents.js";
import { widthOf } from "../../src/render/layout.js";
import { runHere, type Surroundings } from "./here.js";
import { misfits } from "./json-schema.js";
import { type Document, type Ran, saysItsEnd } from "./project.js";
import { Names } from "./stable.js";

/** The widths of the specification. */
export const WIDTHS = [60, 80, 100, 160] as const;

/** Where a screen may go. A terminal here is a stream that says that it is one: what stands on it is the same. */
export const CHANNELS: Readonly<Record<string, (width: number) => Surroundings>> = {
  pipe: () => ({}),
  "CI=1": () => ({ env: { CI: "1" } }),
  "TERM=dumb": (columns) => ({ env: { TERM: "dumb" }, terminal: { columns } }),
  "NO_COLOR=1": (columns) => ({ env: { NO_COLOR: "1" }, terminal: { columns } }),
  terminal: (columns) => ({ env: { TERM: "xterm-256color" }, terminal: { columns } }),
};

/** How a shot is taken. */
export interface ShotOptions {
  /** The folder that the command runs in, below the project's. */
  readonly folder?: string;
  /** It would ask at a terminal: drawn through pipes only. */
  readonly asks?: boolean;
  /** Its output is the same at every width and no screen: a script, Markdown, a JSON Schema. */
  readonly isText?: boolean;
  /** It has no document: `--json` is not tried. */
  readonly hasNoDocument?: boolean;
}

/** One command's shots. */
export interface Shot {
  readonly title: string;
  readonly line: string;
  readonly drawn: readonly (readonly [section: string, text: string])[];
}

/** Takes the shots of one project and keeps them by file. */
export class Gallery {
  readonly files = new Map<string, Shot[]>();
  readonly complaints: string[] = [];
  /** Exit codes and error codes that were met. */
  readonly met = new Set<string>();
  readonly #everyChannel: boolean;

  constructor(everyChannel: boolean) {
    this.#everyChannel = everyChannel;
  }

  /** A wall for one project. */
  wall(dir: string): Wall {
    return new Wall(this, dir, this.#everyChannel);
  }
}

/** A project's part of the gallery. */
export class Wall {
  readonly #gallery: Gallery;
  readonly #dir: string;
  readonly #everyChannel: boolean;
  #names: Names;

  constructor(gallery: Gallery, dir: string, everyChannel: boolean) {
    this.#gallery = gallery;
    this.#dir = dir;
    this.#everyChannel = everyChannel;
    this.#names = new Names(dir);
  }

  /**
   * Draws one command. Its effect stays once, as if it had been run once.
   * @returns how the last drawing ended: 100 columns, a pipe.
   */
  async shot(file: string, title: string, args: readonly string[], options: ShotOptions = {}): Promise<Ran> {
    const complain = (what: string): void => void this.#gallery.complaints.push(`${file}: ${title}: ${what}`);
    const before = frozen(this.#dir);
    const drawn = new Map<string, string>();
    const again = (): void => thaw(this.#dir, before);

    const line = `holdpoint ${args.map(quoted).join(" ")}`;
    for (const [width, channel] of this.#order(options)) {
      const names = this.#names.fork();
      const ran = await this.#run(args, width, channel, options);
      again();
      const text = printed(ran, names, channel);
      const section = channel === "terminal" ? `${width}, colour` : String(width);
      const other = drawn.get(section);
      if (other !== undefined && same(other) !== same(text))
        complain(`${channel} at ${width} differs:\n${text}`);
      drawn.set(section, text);
      if (options.isText !== true) for (const what of faults(ran, width)) complain(`${width}: ${what}`);
    }
    if (options.hasNoDocument !== true) {
      for (const what of await this.#documentFaults(args, options)) complain(what);
      again();
    }
    const ran = await this.#run(args, 100, "pipe", options);
    const kept = printed(ran, this.#names, "pipe");
    if (same(drawn.get("100") ?? kept) !== same(kept)) complain(`a pipe at 100 differs:\n${kept}`);
    drawn.set("100", kept);
    for (const what of refusalFaults(ran)) complain(what);
    this.#gallery.met.add(/ERR_[A-Z_]+/.exec(ran.stderr)?.[0] ?? "");

    const colour = drawn.get("100, colour");
    if (colour !== undefined && same(colour) !== same(kept))
      complain(`colour says something else:\n${colour}`);
    const shots = this.#gallery.files.get(file) ?? [];
    shots.push({ title, line: this.#names.stable(line), drawn: merged(drawn) });
    this.#gallery.files.set(file, shots);
    return ran;
  }

  /** Which widths through which channels, beside the last one. */
  *#order(options: ShotOptions): Generator<readonly [number, string]> {
    const isSilent = options.asks === true;
    const one = isSilent ? ["pipe", "CI=1"] : Object.keys(CHANNELS).filter((c) => c !== "terminal");
    // The widest first: what stands whole there is known again where it is broken.
    for (const [i, width] of [...WIDTHS].reverse().entries()) {
      if (this.#everyChannel) for (const channel of one) yield [width, channel];
      // Each width through another channel; the pipe at 100 comes last, and stays.
      else if (width !== 100) yield [width, one[(i + 1) % one.length] ?? "pipe"];
    }
    if (!isSilent && options.isText !== true) {
      yield [100, "terminal"];
      if (this.#everyChannel) for (const width of [60, 80, 160]) yield [width, "terminal"];
    }
  }

  #run(args: readonly string[], width: number, channel: string, options: ShotOptions): Promise<Ran> {
    const around = CHANNELS[channel]?.(width) ?? {};
    const wide = around.terminal === undefined ? (width === 100 ? [] : ["--width", String(width)]) : [];
    const folder = { dir: join(this.#dir, options.folder ?? ".") };
    const at = args.indexOf("--");
    const all = at === -1 ? [...args, ...wide] : [...args.slice(0, at), ...wide, ...args.slice(at)];
    return runHere(folder, all, { ...around, env: { PAGER: "cat", ...around.env } });
  }

  async #documentFaults(args: readonly string[], options: ShotOptions): Promise<string[]> {
    const at = args.indexOf("--");
    const all = at === -1 ? [...args, "--json"] : [...args.slice(0, at), "--json", ...args.slice(at)];
    const ran = await this.#run(all, 100, "pipe", options);
    let document: Document;
    try {
      document = JSON.parse(ran.stdout) as Document;
    } catch {
      return [`--json gave no single document: ${ran.stdout}`];
    }
    const name = /^holdpoint\/(.*)@1$/.exec(document.schema)?.[1] ?? "";
    const schema = documentSchema(name);
    if (schema === undefined) return [`${document.schema} has no schema`];
    const exits =
      document.exit.code === ran.status ? [] : [`exit ${ran.status}, document ${document.exit.code}`];
    const ends = saysItsEnd(ran.status, ran.stderr, document.error?.code)
      ? []
      : [`--json: exit ${ran.status} without its line on stderr: ${ran.stderr}`];
    return [...misfits(schema, document), ...exits, ...ends];
  }
}

/** The file of one command's shots. */
export function galleryText(shots: readonly Shot[]): string {
  const one = (s: Shot): string =>
    `# ${s.title}\n$ ${s.line}\n${s.drawn.map(([section, text]) => `=== ${section}\n${text}`).join("")}`;
  return shots.map(one).join("\n");
}

/** Sections that say the same stand once, under both names. */
function merged(drawn: ReadonlyMap<string, string>): readonly (readonly [string, string])[] {
  const order = [...WIDTHS.map(String), "100, colour"].filter((s) => drawn.has(s));
  const groups: { names: string[]; text: string }[] = [];
  for (const name of order) {
    const text = drawn.get(name) ?? "";
    const same = groups.find((g) => g.text === text);
    if (same === undefined) groups.push({ names: [name], text });
    else same.names.push(name);
  }
  return groups.map((g) => [g.names.join(" = "), g.text]);
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** What stands there in the end: stdout, then stderr, then how it ended. */
function printed(ran: Ran, names: Names, channel: string): string {
  const isRedrawn = channel === "terminal" || channel === "NO_COLOR=1";
  const lines = (text: string): string[] => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));
  // Narration of what takes a while stands on a line of its own where nothing is redrawn, and is gone where it is.
  const said = lines(ran.stderr)
    .map((l) => (isRedrawn ? l.slice(l.lastIndexOf(CLEAR_LINE) + 1).replace(CLEAR_LINE.slice(1), "") : l))
    .filter((l) => !/^ {2}.* \.\.\.$/.test(l) && l !== "");
  const all = [
    ...lines(ran.stdout)
      .filter((l) => !/^ {2}CI(,| +)1\b/.test(l))
      .map((l) => `| ${l}`.trimEnd()),
    ...said.map((l) => `stderr> ${l}`.trimEnd()),
    ...(ran.status === 0 ? [] : [`! exit ${ran.status}`]),
    "",
  ].join("\n");
  return names.page(all).replaceAll("\u001b", "␛").replaceAll(/ +$/gm, "");
}

const CLEAR_LINE = "\r\u001b[2K";

// oxlint-disable-next-line no-control-regex -- these are the codes, as they are stored
const COLOUR = /[\u001b␛]\[[0-9;]*m/g;

/** What every channel says: the words. A bar is redrawn where a log has a line. */
function same(text: string): string {
  return withoutColour(text).replaceAll(/^stderr> .*wave \d+\/\d+ .*\n/gm, "");
}

function withoutColour(text: string): string {
  return text
    .split("\n")
    .map((l) => l.replaceAll(COLOUR, "").trimEnd())
    .join("\n");
}

/** A line that is wider than its paper; a cell is measured as a terminal would. A token is one line, to be pasted. */
function faults(ran: Ran, width: number): string[] {
  const wide = withoutColour(ran.stdout + ran.stderr)
    .split("\n")
    .filter((l) => !l.includes("\r") && !l.startsWith("hpa1.") && widthOf(l) > width);
  return wide.map((l) => `wider than its paper: ${l}`);
}

/** Every ending that is not 0 has an error on stderr that says whether anything was written. */
function refusalFaults(ran: Ran): string[] {
  if (ran.status === 0) return [];
  if (ran.status === 20)
    return saysItsEnd(20, ran.stderr, undefined) ? [] : ["exit 20 without a line on stderr"];
  const text = withoutColour(ran.stderr);
  return [
    ...(/✗ ERR_[A-Z_]+/.test(text) ? [] : [`exit ${ran.status} without an error on stderr`]),
    ...(/^ {2}State +(Nothing was|THE TARGET WAS CHANGED|It is not known)/m.test(text) ? [] : ["no State"]),
  ];
}

interface Frozen {
  /** Null for a folder. */
  readonly bytes: Buffer | null;
  readonly mode: number;
}

/** Everything below the folder, folders before what is in them. */
function frozen(dir: string): ReadonlyMap<string, Frozen> {
  const found = new Map<string, Frozen>();
  for (const name of readdirSync(dir, { recursive: true, encoding: "utf8" }).sort()) {
    const path = join(dir, name);
    const at = statSync(path);
    found.set(name, { bytes: at.isDirectory() ? null : readFileSync(path), mode: at.mode & 0o777 });
  }
  return found;
}

/** Puts everything back as it was, files in place: a database's inode is part of what it is. */
function thaw(dir: string, before: ReadonlyMap<string, Frozen>): void {
  const now = frozen(dir);
  for (const name of now.keys())
    if (!before.has(name)) rmSync(join(dir, name), { recursive: true, force: true });
  for (const [name, { bytes, mode }] of before) {
    const path = join(dir, name);
    if (bytes === null) mkdirSync(path, { recursive: true });
    else if (now.get(name)?.bytes?.equals(bytes) !== true) writeFileSync(path, bytes);
    chmodSync(path, mode);
  }
}
