/**
 * What differs from run to run and from machine to machine, replaced by something of the same width: ids by their number in
 * the story, times, durations, sizes, digests, keys, folders. The one function that stored screens go through.
 */

/** Ids by their number in the story, and back. */
export class Names {
  readonly #dir: string;
  readonly #known: Map<string, string>;
  /** Shared by all forks: what was once seen whole is known wherever it is broken. */
  readonly #tokens: Map<string, string>;

  constructor(
    dir: string,
    known: ReadonlyMap<string, string> = new Map(),
    tokens: Map<string, string> = new Map(),
  ) {
    this.#dir = dir;
    this.#known = new Map(known);
    this.#tokens = tokens;
  }

  /** Names that go on from here without these learning of it: for a command that is run, taken back and run again. */
  fork(): Names {
    return new Names(this.#dir, this.#known, this.#tokens);
  }

  /** A whole screen: also what narrow paper broke over lines, once it was seen whole. */
  page(text: string): string {
    this.#learn(text);
    return this.#mended(text.split("\n"))
      .map((line) => this.stable(line))
      .join("\n")
      .replaceAll(/\b\d[\d,.]*(\n[| ]*|stderr> *)(B|kB|MB)\b/g, "00.0$1$2")
      .replaceAll(/\b\d\d (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)( \d{4})?(?!\w)/g, (t) =>
        t.replaceAll(/\d/g, "0").replace(/[A-Z][a-z]{2}/, "Mon"),
      )
      .replaceAll(/\b\d{4}-\d\d-\d\d(?:T[\d:]*Z?)?/g, (t) => t.replaceAll(/\d/g, "0"))
      .replaceAll(/(?<![\w.])(?:\d\d)?(?::\d\d)+(?:Z| UTC|$)/gm, (t) => t.replaceAll(/\d/g, "0"));
  }

  /** Words that are volatile wherever they stand, whole: the pieces of them that are found later get the same name. */
  #learn(text: string): void {
    const kinds = [
      /\b(?:pl|rn|sn|lg)_[0-9a-z]{16}\b/g,
      /\bsha256:[0-9a-f]{64}\b/g,
      /\bsqlite:[0-9a-f]{32}\b/g,
      /SHA256:[A-Za-z0-9+/]{43}/g,
      /(?<=\bborn +)\d{15,}/g,
    ];
    for (const [token] of kinds.flatMap((k) => [...text.matchAll(k)]))
      this.#tokens.set(token, /^\d+$/.test(token) ? "0".repeat(token.length) : this.stable(token));
  }

  /** Lines with the pieces of broken tokens named: a piece goes on in the next line, in the column where it began. */
  #mended(lines: readonly string[]): string[] {
    let open: Broken[] = [];
    return lines.map((line) => {
      let text = line;
      const next: Broken[] = [];
      const put = ({ column, token, name, from }: Broken): void => {
        const length = common(line.slice(column), token.slice(from));
        if (length === 0) return;
        text = text.slice(0, column) + name.slice(from, from + length) + text.slice(column + length);
        if (from + length < token.length) next.push({ column, token, name, from: from + length });
      };
      open.forEach(put);
      for (const [token, name] of this.#tokens) {
        const column = line.indexOf(token.slice(0, 12));
        if (column !== -1 && !line.includes(token)) put({ column, token, name, from: 0 });
      }
      open = next;
      return text;
    });
  }

  stable(line: string): string {
    return (
      line
        .replaceAll(this.#dir, "/tmp/project".padEnd(this.#dir.length, "_").slice(0, this.#dir.length))
        .replaceAll(this.#dir.slice(-6), "______")
        .replaceAll(/\b(pl|rn|sn|lg)_[0-9a-z]{16}\b/g, (id) => this.#nameOf(id))
        .replaceAll(/\b(pl|rn|sn|lg)_[0-9a-z]{8,15}\b/g, (id) => this.#shortNameOf(id))
        .replaceAll(
          /\b\d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)( \d{4})? \d\d:\d\d(:\d\d)?\b/g,
          (t) => t.replaceAll(/\d/g, "0").replace(/[A-Z][a-z]{2}/, "Mon"),
        )
        .replaceAll(/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "0000-00-00T00:00:00Z")
        .replaceAll(/\bsha256:[0-9a-f]{64}\b/g, `sha256:${"0".repeat(64)}`)
        .replaceAll(/\bsqlite:[0-9a-f]{32}\b/g, `sqlite:${"0".repeat(32)}`)
        .replaceAll(/\b[0-9a-f]{4}…[0-9a-f]{4}\b/g, "0000…0000")
        .replaceAll(/SHA256:[A-Za-z0-9+/]{43}/g, `SHA256:${"0".repeat(43)}`)
        .replaceAll(/\bSQLite \d+\.\d+\.\d+/g, (t) => t.replaceAll(/\d/g, "0"))
        .replaceAll(/"(born|inode)":"\d+"/g, '"$1":"0"')
        .replaceAll(/\bhpa1\.[A-Za-z0-9_.-]+/g, "hpa1.TOKEN")
        .replaceAll(/\b\d+(\.\d+)? (s|ms)\b/g, "0.0 s")
        // What a file weighs is the engine's version's to say; the number's own width goes too, where blanks can take it up.
        .replaceAll(
          /( *)\b(\d[\d,]*(?:\.\d+)?) (B|kB|MB|bytes)\b/g,
          (all: string, gap: string) =>
            `${" ".repeat(gap.length > 1 ? Math.max(1, all.length - "00.0 kB".length) : gap.length)}00.0 kB`,
        )
        .replaceAll(/\b(born|inode)( +)(\d+ +)/g, (_, name: string, gap: string, number: string) => {
          return `${name}${gap}${"0".padEnd(number.length)}`;
        })
    );
  }

  real(command: string): string {
    let text = command;
    for (const [id, name] of this.#known) text = text.replaceAll(name, id);
    return text;
  }

  /** The beginning of an id that was seen whole, by the end of its name: the beginning is zeros in all of them. */
  #shortNameOf(short: string): string {
    const whole = [...this.#known].find(([id]) => id.startsWith(short));
    return whole === undefined ? short : `${short.slice(0, 3)}${whole[1].slice(3 - short.length)}`;
  }

  #nameOf(id: string): string {
    const prefix = id.slice(0, 3);
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const number = [...this.#known.keys()].filter((k) => k.startsWith(prefix)).length + 1;
    const name = `${prefix}${String(number).padStart(16, "0")}`;
    this.#known.set(id, name);
    return name;
  }
}

/** A token of which a line holds the beginning or a middle. */
interface Broken {
  readonly column: number;
  readonly token: string;
  readonly name: string;
  /** How much of it stands in the lines before. */
  readonly from: number;
}

/** How many characters both begin with. */
function common(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length += 1;
  return length;
}
