/** Init: the files of a first project. Connects to nothing, overwrites nothing. */
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { codeOf, UsageError } from "../base/errors.js";
import { CONFIG_FILE } from "../config/config.js";
import { scaffold, type ScaffoldAnswers, type ScaffoldFile } from "../config/scaffold.js";

/** What became of one file. */
export interface InitFile {
  readonly path: string;
  readonly act: "written" | "line added" | "kept";
}

/**
 * Writes a first project into `folder`.
 * @param shippedPolicies folder of the policies that come with holdpoint.
 * @throws UsageError ERR_CONFIG_EXISTS when there is a holdpoint.yaml already: nothing is written then.
 */
export async function initProject(
  folder: string,
  answers: Omit<ScaffoldAnswers, "policies" | "people"> & {
    /** Name and public key file of each. */
    readonly people: readonly { readonly name: string; readonly keyFile: string }[];
  },
  shippedPolicies: string,
): Promise<readonly InitFile[]> {
  await refuseProject(folder);
  const people: { name: string; publicKey: string }[] = [];
  for (const { name, keyFile } of answers.people)
    people.push({ name, publicKey: await keyText(name, keyFile) });
  const files = scaffold({ target: answers.target, people, policies: await shipped(shippedPolicies) });
  const done: InitFile[] = [];
  for (const file of files) done.push({ path: file.path, act: await put(folder, file) });
  return done;
}

/**
 * Refuses a folder that holds a project: before anybody is asked what they would call another one.
 * @throws UsageError ERR_CONFIG_EXISTS
 */
export async function refuseProject(folder: string): Promise<void> {
  if (!(await isThere(join(folder, CONFIG_FILE)))) return;
  throw new UsageError({
    code: "ERR_CONFIG_EXISTS",
    message: `there is a ${CONFIG_FILE} here already`,
    why: "init never overwrites a file",
    next: [{ actor: "anyone", argv: ["holdpoint", "env", "list"] }],
  });
}

async function put(folder: string, file: ScaffoldFile): Promise<InitFile["act"]> {
  const path = join(folder, file.path);
  await mkdir(dirname(path), { recursive: true });
  if (file.form === "line") return putLine(path, file.content);
  try {
    await writeFile(path, file.content, { flag: "wx" });
    return "written";
  } catch (e) {
    if (codeOf(e) === "EEXIST") return "kept";
    throw e;
  }
}

async function putLine(path: string, line: string): Promise<InitFile["act"]> {
  const text = (await isThere(path)) ? await readFile(path, "utf8") : "";
  if (text.split(/\r?\n/).includes(line)) return "kept";
  const glue = text === "" || text.endsWith("\n") ? "" : "\n";
  await writeFile(path, `${text}${glue}${line}\n`);
  return "line added";
}

async function shipped(
  folder: string,
): Promise<readonly { readonly path: string; readonly content: string }[]> {
  const names = (await readdir(folder)).filter((n) => n.endsWith(".yaml")).sort();
  const policies: { path: string; content: string }[] = [];
  for (const path of names) policies.push({ path, content: await readFile(join(folder, path), "utf8") });
  return policies;
}

async function keyText(person: string, file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (e) {
    throw new UsageError({
      code: "ERR_USAGE",
      message: `the public key of ${person} cannot be read from ${file}`,
      why: codeOf(e) === "ENOENT" ? "there is no such file" : (codeOf(e) ?? "it is no file"),
      next: [{ actor: "anyone", text: "Name the file that ends in .pub, as ssh-keygen wrote it." }],
      cause: e,
    });
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (e) {
    if (codeOf(e) === "ENOENT") return false;
    throw e;
  }
}
