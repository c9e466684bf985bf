/** The SSH keys that lie on this machine, without using any: for `key list` and `key check`. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parsePublicKey, type PublicKey } from "../approval/public-key.js";
import { readCertificate } from "../approval/ssh-certificate.js";
import type { VerifiedSignature } from "../approval/sshsig.js";
import { codeOf, HoldpointError, messageOf } from "../base/errors.js";
import { askAgent } from "./ssh-agent.js";
import { publicHalf } from "./ssh-sign.js";

/** One key that was found. */
interface Found {
  readonly source: "agent" | "file";
  readonly where: string;
  readonly signer: Pick<VerifiedSignature, "key" | "certificate">;
}

/**
 * Keys in the agent, then those in `~/.ssh/*.pub`; with `keyFlag` that one alone. Of a private key's file only the
 * public half beside it is read.
 * @throws RefusedError ERR_KEY_MISSING when `keyFlag` names no key file.
 */
export async function keysInReach(args: {
  readonly keyFlag: string | undefined;
  readonly home: string;
  readonly agent: string | undefined;
}): Promise<{ readonly keys: readonly Found[]; readonly problems: readonly string[] }> {
  if (args.keyFlag !== undefined) return namedKey(args.keyFlag);
  const agent = await askAgent(args.agent);
  const files = await keyFiles(join(args.home, ".ssh"));
  return {
    keys: [
      ...agent.keys.map((k): Found => ({
        source: "agent",
        where: k.comment === "" ? k.type : k.comment,
        signer: signerOf(k),
      })),
      ...files.keys,
    ],
    problems: [...(agent.problem === null ? [] : [`agent: ${agent.problem}`]), ...files.problems],
  };
}

async function namedKey(path: string): ReturnType<typeof keysInReach> {
  const key = await publicHalf(path);
  if (key === null) return { keys: [], problems: [`${path} is a private key without ${path}.pub beside it`] };
  return { keys: [{ source: "file", where: path, signer: signerOf(key) }], problems: [] };
}

async function keyFiles(
  folder: string,
): Promise<{ readonly keys: readonly Found[]; readonly problems: readonly string[] }> {
  const keys: Found[] = [];
  const problems: string[] = [];
  let names: readonly string[] = [];
  try {
    names = (await readdir(folder)).filter((n) => n.endsWith(".pub")).sort();
  } catch (e) {
    problems.push(
      codeOf(e) === "ENOENT" ? `there is no ${folder}` : `${folder} cannot be read: ${messageOf(e)}`,
    );
  }
  for (const name of names) {
    const path = join(folder, name);
    try {
      const [line = ""] = (await readFile(path, "utf8")).split("\n");
      keys.push({ source: "file", where: path, signer: signerOf(parsePublicKey(line)) });
    } catch (e) {
      // Not a key for us (DSA, a short RSA key, or no key at all): told, because it may be the one that was meant.
      const why = e instanceof HoldpointError ? (e.why ?? e.message) : messageOf(e);
      problems.push(`${path}: ${why}`);
    }
  }
  return { keys, problems };
}

function signerOf(key: PublicKey): Found["signer"] {
  if (!key.certificate) return { key: { type: key.type, blob: key.blob, fingerprint: key.fingerprint } };
  const certificate = readCertificate(key.blob);
  const { type, blob } = certificate.key;
  return { key: { type, blob, fingerprint: key.fingerprint }, certificate };
}
