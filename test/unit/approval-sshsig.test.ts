import { createHash, createPrivateKey, sign as cryptoSign } from "node:crypto";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { parsePublicKey, publicKeyOf } from "../../src/approval/public-key.js";
import {
  armor,
  dearmor,
  parseSshsig,
  signedData,
  sshsigBlob,
  verifySshsig,
} from "../../src/approval/sshsig.js";
import { wireString, wireUint32 } from "../../src/approval/ssh-wire.js";
import { HoldpointError } from "../../src/base/errors.js";
import { agentKeys, agentSign } from "../../src/machine/ssh-agent.js";
import {
  type Agent,
  certify,
  keygenSign,
  keygenVerifies,
  makeFolder,
  makeKey,
  mpint,
  publicBlob,
  publicLine,
  removeFolder,
  softwareToken,
  startAgent,
} from "../support/ssh.js";

const NAMESPACE = "holdpoint-approval";
const BYTES = Buffer.from("holdpoint approval\nplan: pl_0123456789abcdef\n");

const KINDS = [
  ["ed25519", undefined],
  ["ecdsa", 256],
  ["ecdsa", 384],
  ["ecdsa", 521],
  ["rsa", 2048],
  ["rsa", 3072],
] as const;

let folder: string;
let agent: Agent;
const keys = new Map<string, string>();

beforeAll(async () => {
  folder = makeFolder();
  agent = await startAgent(folder);
  for (const [type, bits] of KINDS) {
    const name = `${type}${bits ?? ""}`;
    const path = makeKey(folder, name, type, bits);
    keys.set(name, path);
    agent.add(path);
  }
});

afterAll(() => {
  agent.stop();
  removeFolder(folder);
});

function keyPath(name: string): string {
  const path = keys.get(name);
  if (path === undefined) throw new Error(`no key ${name}`);
  return path;
}

function verify(
  signature: Uint8Array,
  bytes: Uint8Array = BYTES,
  namespace = NAMESPACE,
): ReturnType<typeof verifySshsig> {
  return verifySshsig({ bytes, signature, namespace });
}

async function signByAgent(key: string, bytes: Uint8Array = BYTES): Promise<Uint8Array> {
  const blob = publicBlob(key);
  const found = (await agentKeys(agent.socket)).find((k) => Buffer.compare(k.blob, blob) === 0);
  if (found === undefined) throw new Error("not in the agent");
  const signature = await agentSign(found, signedData({ bytes, namespace: NAMESPACE }));
  return sshsigBlob({ publicKey: blob, namespace: NAMESPACE, signature });
}

describe.each(KINDS)("%s %s", (type, bits) => {
  const name = `${type}${bits ?? ""}`;

  test.each(["sha256", "sha512"])("what ssh-keygen signs over %s is accepted", (hash) => {
    const blob = dearmor(keygenSign(keyPath(name), NAMESPACE, BYTES, ["-O", `hashalg=${hash}`]));
    const result = verify(blob);
    expect(result).toMatchObject({ ok: true, userPresent: null, userVerified: null });
    const listed = execFileSync("ssh-keygen", ["-l", "-f", `${keyPath(name)}.pub`])
      .toString()
      .split(" ")[1];
    expect(result.ok && result.key.fingerprint).toBe(listed);
    expect(parseSshsig(blob).hash).toBe(hash);
  });

  test("what the agent signs for holdpoint, ssh-keygen accepts", async () => {
    const blob = await signByAgent(keyPath(name));
    expect(verify(blob).ok).toBe(true);
    const signers = `ravi@shop.example namespaces="${NAMESPACE}" ${publicLine(keyPath(name))}\n`;
    const check = {
      folder,
      signers,
      person: "ravi@shop.example",
      namespace: NAMESPACE,
      armored: armor(blob),
    };
    expect(keygenVerifies({ ...check, bytes: BYTES })).toBe(true);
    expect(keygenVerifies({ ...check, bytes: Buffer.from("other") })).toBe(false);
  });

  test("other bytes and another namespace are refused", () => {
    const blob = dearmor(keygenSign(keyPath(name), NAMESPACE, BYTES));
    expect(verify(blob, Buffer.from("other"))).toMatchObject({ ok: false, kind: "signature" });
    expect(verify(blob, BYTES, "holdpoint-plan")).toMatchObject({ ok: false, kind: "namespace" });
  });

  test("every byte flipped and every truncation is refused", () => {
    const blob = dearmor(keygenSign(keyPath(name), NAMESPACE, BYTES));
    for (let i = 0; i < blob.length; i++) {
      for (const bit of [0x01, 0x80]) {
        const altered = Buffer.from(blob);
        altered[i] = (altered[i] ?? 0) ^ bit;
        expect([i, verify(altered).ok]).toEqual([i, false]);
      }
      expect([i, verify(blob.subarray(0, i)).ok]).toEqual([i, false]);
    }
  });
});

describe("hardware keys, in software", () => {
  test.each(["ed25519", "ecdsa"] as const)("sk-%s: a touch is reported, its absence too", (kind) => {
    const key = softwareToken(kind);
    expect(verify(key.sign(NAMESPACE, BYTES, 1))).toMatchObject({
      ok: true,
      userPresent: true,
      userVerified: false,
    });
    expect(verify(key.sign(NAMESPACE, BYTES, 5))).toMatchObject({
      ok: true,
      userPresent: true,
      userVerified: true,
    });
    expect(verify(key.sign(NAMESPACE, BYTES, 0))).toMatchObject({ ok: true, userPresent: false });
  });

  test.each(["ed25519", "ecdsa"] as const)("sk-%s: ssh-keygen agrees that the signature is good", (kind) => {
    const key = softwareToken(kind);
    const signers = `ravi namespaces="${NAMESPACE}" ${key.line}\n`;
    const armored = armor(key.sign(NAMESPACE, BYTES, 1));
    expect(
      keygenVerifies({ folder, signers, person: "ravi", namespace: NAMESPACE, bytes: BYTES, armored }),
    ).toBe(true);
  });

  test.each(["ed25519", "ecdsa"] as const)(
    "sk-%s: every byte flipped is refused, flags and counter included",
    (kind) => {
      const blob = softwareToken(kind).sign(NAMESPACE, BYTES, 1);
      for (let i = 0; i < blob.length; i++) {
        const altered = Buffer.from(blob);
        altered[i] = (altered[i] ?? 0) ^ 0x04;
        expect([i, verify(altered).ok]).toEqual([i, false]);
      }
    },
  );
});

describe("certificates", () => {
  let authority: string;
  const signers = (): string => `ravi cert-authority,namespaces="${NAMESPACE}" ${publicLine(authority)}\n`;

  beforeAll(() => {
    authority = makeKey(folder, "authority");
  });

  /** Signs with a fresh key that carries a certificate, through the real agent. */
  async function signWithCertificate(
    name: string,
    principals: readonly string[],
    options: readonly string[] = [],
    type = "ed25519",
    bits?: number,
  ): Promise<Uint8Array> {
    const key = makeKey(folder, name, type, bits);
    const path = certify({ authority, key, principals, options });
    agent.add(key);
    const blob = Buffer.from(readFileSync(path, "utf8").split(" ")[1] ?? "", "base64");
    const raw = (await agentKeys(agent.socket)).find((k) => Buffer.compare(k.blob, publicBlob(key)) === 0);
    if (raw === undefined) throw new Error("not in the agent");
    const signature = await agentSign({ ...raw, blob }, signedData({ bytes: BYTES, namespace: NAMESPACE }));
    return sshsigBlob({ publicKey: blob, namespace: NAMESPACE, signature });
  }

  test.each([
    ["ed25519", undefined],
    ["ecdsa", 256],
    ["ecdsa", 384],
    ["ecdsa", 521],
    ["rsa", 2048],
  ] as const)("%s %s: one principal is accepted, by ssh-keygen too", async (type, bits) => {
    const blob = await signWithCertificate(`cert-${type}${bits ?? ""}`, ["ravi"], ["-V", "+1h"], type, bits);
    const result = verify(blob);
    expect(result).toMatchObject({ ok: true, certificate: { principal: "ravi" } });
    expect(result.ok && result.certificate?.authority).toBe(
      parsePublicKey(publicLine(authority)).fingerprint,
    );
    expect(result.ok && result.key.fingerprint).toBe(
      parsePublicKey(publicLine(`${folder}/cert-${type}${bits ?? ""}`)).fingerprint,
    );
    const check = { folder, signers: signers(), person: "ravi", namespace: NAMESPACE, bytes: BYTES };
    expect(keygenVerifies({ ...check, armored: armor(blob) })).toBe(true);
  });

  test("an RSA authority signs with SHA-2", async () => {
    const rsa = makeKey(folder, "rsa-authority", "rsa", 2048);
    const key = makeKey(folder, "under-rsa");
    const path = certify({ authority: rsa, key, principals: ["ravi"] });
    expect(
      publicKeyOf(Buffer.from(readFileSync(path, "utf8").split(" ")[1] ?? "", "base64")).certificate,
    ).toBe(true);
    const sha1 = makeKey(folder, "under-sha1");
    const weak = certify({ authority: rsa, key: sha1, principals: ["ravi"], options: ["-t", "ssh-rsa"] });
    const blob = Buffer.from(readFileSync(weak, "utf8").split(" ")[1] ?? "", "base64");
    expect(() => publicKeyOf(blob)).toThrow(
      expect.objectContaining({ why: expect.stringMatching(/rsa-sha2/) }),
    );
  });

  test.each([
    ["several principals", ["ravi", "mona"], [], /several principals/],
    ["no principal", [], [], /no principal/],
    ["a host certificate", ["ravi"], ["-h"], /not a user certificate/],
    ["a forced command", ["ravi"], ["-O", "force-command=/bin/true"], /critical option force-command/],
    [
      "an unknown critical option",
      ["ravi"],
      ["-O", "critical:odd@shop.example=1"],
      /critical option odd@shop/,
    ],
  ] as const)("%s is refused", async (name, principals, options, why) => {
    const blob = await signWithCertificate(`bad-${name.replace(/ /g, "-")}`, principals, options);
    const result = verify(blob);
    expect(result).toMatchObject({ ok: false, kind: "malformed" });
    expect(!result.ok && result.why).toMatch(why);
  });

  test("verify-required is enforced: a software key cannot meet it", async () => {
    const result = verify(await signWithCertificate("verified", ["ravi"], ["-O", "verify-required"]));
    expect(!result.ok && result.why).toMatch(/PIN or a finger/);
  });

  test("every byte of the certificate flipped is refused", async () => {
    const blob = await signWithCertificate("flipped", ["ravi"], ["-V", "+1h"]);
    for (let i = 0; i < blob.length; i++) {
      const altered = Buffer.from(blob);
      altered[i] = (altered[i] ?? 0) ^ 0x01;
      expect([i, verify(altered).ok]).toEqual([i, false]);
    }
  });
});

describe("what OpenSSH would let pass, or has let pass, and we do not", () => {
  const refusal = (blob: Uint8Array): string => {
    const result = verify(blob);
    return result.ok ? "accepted" : result.why;
  };

  test("an RSA signature with SHA-1", () => {
    const key = keyPath("rsa2048");
    const copy = `${key}.pem`;
    execFileSync("cp", [key, copy]);
    execFileSync("ssh-keygen", ["-q", "-p", "-m", "PEM", "-N", "", "-f", copy], { stdio: "ignore" });
    const raw = cryptoSign(
      "sha1",
      signedData({ bytes: BYTES, namespace: NAMESPACE }),
      createPrivateKey(readFileSync(copy)),
    );
    const signature = Buffer.concat([wireString("ssh-rsa"), wireString(raw)]);
    expect(refusal(sshsigBlob({ publicKey: publicBlob(key), namespace: NAMESPACE, signature }))).toMatch(
      /not ssh-rsa/,
    );
  });

  test("an RSA key of 1024 bits, and a DSA key", () => {
    const short = makeKey(folder, "short", "rsa", 1024);
    expect(() => parsePublicKey(publicLine(short))).toThrow(
      expect.objectContaining({ code: "ERR_PEOPLE_INVALID" }),
    );
    expect(refusal(dearmor(keygenSign(short, NAMESPACE, BYTES)))).toMatch(/1024 bits is too short/);
    const dsa = wireString("ssh-dss");
    const signature = wireString("ssh-dss");
    expect(refusal(sshsigBlob({ publicKey: dsa, namespace: NAMESPACE, signature }))).toMatch(
      /type ssh-dss are not/,
    );
  });

  test("trailing bytes, another version, another hash, a filled reserved field, no namespace", () => {
    const blob = Buffer.from(dearmor(keygenSign(keyPath("ed25519"), NAMESPACE, BYTES)));
    expect(refusal(Buffer.concat([blob, Buffer.from([0])]))).toMatch(/1 bytes too many/);
    const rebuilt = (version: number, namespace: string, reserved: string, hash: string): Uint8Array => {
      const { publicKey, signature } = parseSshsig(blob);
      const fields = [publicKey, namespace, reserved, hash, signature].map((f) => wireString(f));
      return Buffer.concat([Buffer.from("SSHSIG"), wireUint32(version), ...fields]);
    };
    expect(refusal(rebuilt(1, NAMESPACE, "", "sha512"))).toBe("accepted");
    expect(refusal(rebuilt(2, NAMESPACE, "", "sha512"))).toMatch(/version 2/);
    expect(refusal(rebuilt(1, NAMESPACE, "x", "sha512"))).toMatch(/reserved/);
    expect(refusal(rebuilt(1, NAMESPACE, "", "sha1"))).toMatch(/hash sha1/);
    expect(refusal(rebuilt(1, "", "", "sha512"))).toMatch(/no namespace/);
    expect(refusal(Buffer.alloc(70_000))).toMatch(/too long/);
  });

  test("numbers with needless zeros, a point off its curve, another key's algorithm", () => {
    const parsed = parseSshsig(dearmor(keygenSign(keyPath("ecdsa256"), NAMESPACE, BYTES)));
    const padded = wireString(Buffer.concat([wireString(Buffer.from([0, 0, 1])), mpint(Buffer.from([1]))]));
    const signature = Buffer.concat([wireString("ecdsa-sha2-nistp256"), padded]);
    expect(refusal(sshsigBlob({ ...parsed, signature }))).toMatch(/needless leading zeros/);
    const off = Buffer.from(parsed.publicKey);
    off[off.length - 1] = (off[off.length - 1] ?? 0) ^ 1;
    expect(refusal(sshsigBlob({ ...parsed, publicKey: off }))).toMatch(/no key/);
    const ed25519 = parseSshsig(dearmor(keygenSign(keyPath("ed25519"), NAMESPACE, BYTES)));
    expect(refusal(sshsigBlob({ ...parsed, signature: ed25519.signature }))).toMatch(/does not fit/);
  });

  test("a signature over the bytes without SSHSIG's preamble", async () => {
    const key = (await agentKeys(agent.socket)).find((k) => k.type === "ssh-ed25519");
    if (key === undefined) throw new Error("not in the agent");
    const signature = await agentSign(key, createHash("sha512").update(BYTES).digest());
    expect(refusal(sshsigBlob({ publicKey: key.blob, namespace: NAMESPACE, signature }))).toMatch(
      /not the ones/,
    );
  });
});

describe("armor", () => {
  test("is the text that ssh-keygen writes", () => {
    const text = keygenSign(keyPath("rsa3072"), NAMESPACE, BYTES);
    expect(armor(dearmor(text))).toBe(text);
    expect(dearmor(`\n  ${text.replace(/\n/g, "\r\n")}  `)).toEqual(dearmor(text));
  });

  test.each([
    "",
    "-----BEGIN SSH SIGNATURE-----",
    "-----BEGIN SSH SIGNATURE-----\n!!\n-----END SSH SIGNATURE-----",
  ])("refuses %j", (text) => {
    expect(() => dearmor(text)).toThrow(HoldpointError);
  });
});
