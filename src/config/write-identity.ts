/**
 * The one thing that holdpoint ever writes into holdpoint.yaml: a target's `identity`, at `env pin`. Only the
 * bytes of that value change; comments, order and layout stay as the people wrote them.
 */
import { readFile, realpath, rename, stat, unlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { isMap, isScalar, type Pair, parseDocument, type YAMLMap } from "yaml";
import { HoldpointError, UsageError } from "../base/errors.js";

/**
 * Writes `identity` into the target's part of the file, in place of an older one or as a new line behind
 * `environment` or `url`. The file is replaced as a whole, so that it is never half written.
 * @throws UsageError ERR_TARGET_UNKNOWN when the file has no such target.
 */
export async function writeIdentity(file: string, target: string, identity: string): Promise<void> {
  // Through a link, so that the file stays where it is.
  const path = await realpath(file);
  const { mode } = await stat(path);
  const text = withIdentity(await readFile(path, "utf8"), target, identity);
  const draft = join(dirname(path), `.holdpoint.yaml.${process.pid}`);
  try {
    await writeFile(draft, text, { mode: mode & 0o777, flag: "wx" });
    await rename(draft, path);
  } catch (e) {
    await unlink(draft).catch(() => undefined);
    throw e;
  }
}

/**
 * The text with that identity. Pure.
 * Law: apart from `targets.TARGET.identity` the text reads as the same data, and every comment is still there.
 */
export function withIdentity(text: string, target: string, identity: string): string {
  const map = targetMap(text, target);
  const edited = edit(text, map, identity);
  if (!sameButIdentity(text, edited, target, identity)) {
    throw new HoldpointError({
      code: "ERR_INTERNAL",
      message: `the identity of ${target} could not be written into its place`,
    });
  }
  return edited;
}

function targetMap(text: string, target: string): YAMLMap {
  const map: unknown = parseDocument(text, { version: "1.2" }).getIn(["targets", target], true);
  if (isMap(map)) return map;
  throw new UsageError({ code: "ERR_TARGET_UNKNOWN", message: `holdpoint.yaml has no target ${target}` });
}

function edit(text: string, map: YAMLMap, identity: string): string {
  const old = pairOf(map, "identity");
  if (old !== undefined) {
    const [from, to] = rangeOf(old.value);
    return text.slice(0, from) + identity + text.slice(to);
  }
  const neighbour = pairOf(map, "environment") ?? pairOf(map, "url");
  if (neighbour === undefined) return text;
  const [keyStart] = rangeOf(neighbour.key);
  const [, valueEnd] = rangeOf(neighbour.value);
  if (map.flow === true) return `${text.slice(0, valueEnd)}, identity: ${identity}${text.slice(valueEnd)}`;
  const lineStart = text.lastIndexOf("\n", keyStart - 1) + 1;
  const indent = text.slice(lineStart, keyStart).replaceAll(/[^ ]/g, " ");
  // Behind the comment that may stand on the neighbour's line; a value in block style ends with its line.
  const inside = text.charAt(valueEnd - 1) === "\n" ? valueEnd - 1 : text.indexOf("\n", valueEnd);
  const lineEnd = inside < 0 ? text.length : inside;
  const feed = text.charAt(lineEnd - 1) === "\r" ? "\r\n" : "\n";
  const at = feed === "\r\n" ? lineEnd - 1 : lineEnd;
  return `${text.slice(0, at)}${feed}${indent}identity: ${identity}${text.slice(at)}`;
}

function pairOf(map: YAMLMap, key: string): Pair | undefined {
  return map.items.find((pair) => isScalar(pair.key) && pair.key.value === key);
}

function rangeOf(node: unknown): readonly [number, number] {
  return isScalar(node) && node.range !== null && node.range !== undefined
    ? [node.range[0], node.range[1]]
    : [0, 0];
}

/** Read back before it is written: what was meant is compared with what a reader will find. */
function sameButIdentity(before: string, after: string, target: string, identity: string): boolean {
  const wanted = parseDocument(before, { version: "1.2" });
  wanted.setIn(["targets", target, "identity"], identity);
  const found = parseDocument(after, { version: "1.2" });
  return found.errors.length === 0 && isDeepStrictEqual(found.toJS(), wanted.toJS());
}
