/**
 * The system's own pins: a file that only root can write, which says what a target must pin whatever its marker says.
 * Whoever holds the target's write password can change a marker; this file they cannot. Its place is fixed: no
 * variable and no configuration can point elsewhere.
 */
import { lstat, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import * as z from "zod";
import { type Digest, isDigest } from "../base/digest.js";
import { codeOf, messageOf, RefusedError } from "../base/errors.js";
import { parseYaml, plainText } from "./yaml-file.js";

/** Where it lies. */
export const SYSTEM_PINS_FILE = "/etc/holdpoint/pins.yaml";

/** What a target of that name must be. */
export interface SystemPin {
  readonly identity: string;
  readonly bundle: Digest;
}

const schema = z.strictObject({
  pins: z.record(plainText(), z.strictObject({ identity: plainText(), bundle: plainText() })),
});

/**
 * Reads the pins by target name; none where there is no file. Fails closed: a file that others than root can write,
 * or that cannot be read, refuses, because somebody put it there to guard.
 * @throws RefusedError ERR_TRUST_BUNDLE (30).
 */
export async function readSystemPins(
  file: string = SYSTEM_PINS_FILE,
): Promise<Readonly<Record<string, SystemPin>>> {
  let text: string;
  try {
    const fault = (await faultOf(file, "file")) ?? (await faultOf(dirname(file), "folder"));
    if (fault !== null) throw unusable(file, fault);
    text = await readFile(file, "utf8");
  } catch (e) {
    if (e instanceof RefusedError) throw e;
    if (codeOf(e) === "ENOENT" || codeOf(e) === "ENOTDIR") return {};
    throw unusable(file, messageOf(e), e);
  }
  return parseSystemPins(text, file);
}

/** {@link readSystemPins} on text that was read. Pure. */
export function parseSystemPins(text: string, file: string): Readonly<Record<string, SystemPin>> {
  const { pins } = parseYaml(text, file, schema).value;
  return Object.fromEntries(
    Object.entries(pins).map(([name, { identity, bundle }]) => {
      if (!isDigest(bundle)) throw unusable(file, `the bundle of ${name} is no sha256 digest`);
      return [name, { identity, bundle }];
    }),
  );
}

async function faultOf(path: string, what: "file" | "folder"): Promise<string | null> {
  const facts = await lstat(path);
  if (what === "file" ? !facts.isFile() : !facts.isDirectory()) return `${path} is no plain ${what}`;
  if (facts.uid !== 0) return `${path} belongs to user ${facts.uid}, and must to root`;
  if ((facts.mode & 0o022) !== 0)
    return `${path} can be written by others (mode ${(facts.mode & 0o777).toString(8)})`;
  return null;
}

function unusable(file: string, why: string, cause?: unknown): RefusedError {
  return new RefusedError({
    code: "ERR_TRUST_BUNDLE",
    message: `the system's pins in ${file} cannot be believed`,
    why,
    next: [{ actor: "dba", text: `Root mends the file, or its owner and mode (root, 0644).` }],
    ...(cause === undefined ? {} : { cause }),
  });
}
