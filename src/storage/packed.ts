/**
 * A ChangeSet's canonical stream, encoded and packed once into a file of ours: its digest is known before the file that it
 * belongs into can be begun, since a plan's statement and a snapshot's manifest stand before the rows and name it.
 */
import { createHash } from "node:crypto";
import { asFarAsPossible, IntegrityError } from "../base/errors.js";
import { BlockPacker, packBlocks } from "../changeset/blocks.js";
import type { Change, ChangeSink, ChangeSource, TableShape } from "../changeset/change.js";
import { type Measured, measuredStream, StreamInProgress } from "../changeset/encode.js";
import { sortedTables } from "../changeset/source.js";
import { readPieces, ScratchFile, writeScratch } from "./files.js";
import { discard } from "./sqlite.js";

/** Packed blocks in a file of their own, which somebody removes. */
export interface PackedChanges extends Measured {
  /**
   * The blocks, for one reading.
   * @throws IntegrityError ERR_CHANGESET_ALTERED at the end when they are not what was written.
   */
  readonly blocks: () => Iterable<Uint8Array>;
  readonly remove: () => void;
}

/** A source that packs itself at most once. */
export interface PackingSource extends ChangeSource {
  readonly packed: (also?: ChangeSink) => PackedChanges;
}

/** Whether the source packs itself. */
export function isPacking(source: ChangeSource): source is PackingSource {
  return "packed" in source && typeof source.packed === "function";
}

/** Packs a source into a fresh file at a free path; `also` is told every change. */
export function packChanges(source: ChangeSource, path: string, also?: ChangeSink): PackedChanges {
  const { chunks, measured } = measuredStream(source, also);
  const written = createHash("sha256");
  function* counted(): Iterable<Uint8Array> {
    for (const piece of packBlocks(chunks)) {
      written.update(piece);
      yield piece;
    }
  }
  const remove = (): void => discard(path);
  remove();
  try {
    writeScratch(path, counted());
  } catch (e) {
    remove();
    throw e;
  }
  const digest = written.digest("hex");
  return { ...measured(), blocks: () => blocksAt(path, digest), remove: () => asFarAsPossible(remove) };
}

/** {@link packChanges} for whoever has the changes passing anyway, in canonical order. Either `finish` or `abort` it. */
export class PackingInProgress implements ChangeSink {
  readonly #path: string;
  readonly #file: ScratchFile;
  readonly #written = createHash("sha256");
  readonly #packer: BlockPacker;
  readonly #stream: StreamInProgress;

  constructor(path: string) {
    this.#path = path;
    this.#file = new ScratchFile(path);
    this.#packer = new BlockPacker((piece) => {
      this.#written.update(piece);
      this.#file.write(piece);
    });
    this.#stream = new StreamInProgress((chunk) => this.#packer.push(chunk));
  }

  table = (shape: TableShape): void => this.#stream.table(shape);
  add = (change: Change): void => this.#stream.add(change);

  finish(): PackedChanges {
    const measured = this.#stream.finish();
    this.#packer.end();
    this.#file.close();
    const digest = this.#written.digest("hex");
    const remove = (): void => asFarAsPossible(() => discard(this.#path));
    return { ...measured, blocks: () => blocksAt(this.#path, digest), remove };
  }

  /** Leaves nothing behind. */
  abort(): void {
    this.#file.close();
    discard(this.#path);
  }
}

/** Tells a sink every table and change of a source. */
export function tell(source: ChangeSource, sink: ChangeSink): void {
  for (const shape of sortedTables(source.tables)) {
    sink.table(shape);
    for (const change of source.changes(shape.name)) sink.add(change);
  }
}

function* blocksAt(path: string, digest: string): Iterable<Uint8Array> {
  const found = createHash("sha256");
  for (const piece of readPieces(path)) {
    found.update(piece);
    yield piece;
  }
  if (found.digest("hex") === digest) return;
  throw new IntegrityError({
    code: "ERR_CHANGESET_ALTERED",
    message: `${path} changed while it was in use`,
    why: "its bytes are not those that were written to it a moment ago",
  });
}
