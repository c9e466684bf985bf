/** Signing with real keys: files, passphrases, a real agent, and a real pseudo-terminal. */
import { spawn } from "@lydell/node-pty";
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { parseAllowedSigners } from "../../src/approval/allowed-signers.js";
import { people } from "../../src/approval/people.js";
import { parsePublicKey } from "../../src/approval/public-key.js";
import type { Person } from "../../src/approval/requirement.js";
import { armor, verifySshsig } from "../../src/approval/sshsig.js";
import { agentKeys } from "../../src/machine/ssh-agent.js";
import { findKey, type FoundKey, signBytes } from "../../src/machine/ssh-sign.js";
import { NOW } from "../support/approvals.js";
import {
  type Agent,
  certify,
  keygenVerifies,
  makeFolder,
  makeKey,
  publicLine,
  removeFolder,
  startAgent,
} from "../support/ssh.js";

const NAMESPACE = "holdpoint-approval";
const BYTES = Buffer.from("holdpoint approval\n");
const PASSPHRASE = "correct horse battery";

let folder: string;
let plain: string;
let locked: string;
let env: Record<string, string | undefined>;

beforeAll(() => {
  folder = makeFolder();
  plain = makeKey(folder, "plain");
  locked = makeKey(folder, "locked", "ed25519", undefined, PASSPHRASE);
  env = { PATH: process.env["PATH"], HOME: folder };
});
afterAll(() => removeFolder(folder));

const code = (code: string, why?: RegExp): unknown =>
  expect.objectContaining({ code, ...(why === undefined ? {} : { why: expect.stringMatching(why) }) });

function fingerprintOf(key: string): string {
  return parsePublicKey(publicLine(key)).fingerprint;
}

function peopleWith(...lines: readonly (readonly [string, string])[]): readonly Person[] {
  const text = lines.map(([name, key]) => `${name} namespaces="${NAMESPACE}" ${publicLine(key)}`).join("\n");
  return people(parseAllowedSigners(text, "people"), {});
}

function sign(
  key: string | FoundKey,
  change: Record<string, string | undefined> = {},
): ReturnType<typeof signBytes> {
  return signBytes({
    bytes: BYTES,
    namespace: NAMESPACE,
    key,
    interactive: false,
    env: { ...env, ...change },
  });
}

describe("by key file", () => {
  test.each([
    ["ed25519", undefined],
    ["ecdsa", 384],
    ["rsa", 2048],
  ] as const)("%s: the private key's path, and ssh-keygen agrees", async (type, bits) => {
    const key = makeKey(folder, `file-${type}`, type, bits);
    const { signature, fingerprint } = await sign(key);
    expect(fingerprint).toBe(fingerprintOf(key));
    const signers = `ravi namespaces="${NAMESPACE}" ${publicLine(key)}\n`;
    const check = { folder, signers, person: "ravi", namespace: NAMESPACE, bytes: BYTES };
    expect(keygenVerifies({ ...check, armored: armor(signature) })).toBe(true);
  });

  test("the public key's path, with the private key beside it", async () => {
    expect((await sign(`${plain}.pub`)).fingerprint).toBe(fingerprintOf(plain));
  });

  test("a private key without its public one beside it", async () => {
    const alone = join(folder, "alone");
    copyFileSync(plain, alone);
    chmodSync(alone, 0o600);
    expect((await sign(alone)).fingerprint).toBe(fingerprintOf(plain));
  });

  test("a certificate's path, with the private key beside it", async () => {
    const key = makeKey(folder, "certified");
    const path = certify({ authority: plain, key, principals: ["ravi"] });
    const { signature } = await sign(path);
    expect(verifySshsig({ bytes: BYTES, signature, namespace: NAMESPACE })).toMatchObject({
      ok: true,
      certificate: { principal: "ravi" },
    });
  });

  test("a passphrase without a terminal is refused at once, whatever helper programs are offered", async () => {
    const asked = join(folder, "asked");
    const helper = join(folder, "askpass");
    writeFileSync(helper, `#!/bin/sh\ntouch ${asked}\necho ${PASSPHRASE}\n`, { mode: 0o700 });
    const refusal = sign(locked, { SSH_ASKPASS: helper, SSH_ASKPASS_REQUIRE: "force", DISPLAY: ":0" });
    await expect(refusal).rejects.toEqual(code("ERR_KEY_REFUSED", /without a terminal/));
    expect(existsSync(asked)).toBe(false);
  });

  test("no such file", async () => {
    await expect(sign(join(folder, "nowhere"))).rejects.toEqual(code("ERR_KEY_MISSING", /ENOENT/));
  });

  test("a file that is no key", async () => {
    writeFileSync(join(folder, "notes.txt"), "not a key\n");
    await expect(sign(join(folder, "notes.txt"))).rejects.toEqual(code("ERR_KEY_MISSING"));
    writeFileSync(join(folder, "broken"), "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END", {
      mode: 0o600,
    });
    await expect(sign(join(folder, "broken"))).rejects.toEqual(code("ERR_KEY_REFUSED", /ssh-keygen:/));
  });

  test("a private key that others may read is refused by ssh-keygen, and said so", async () => {
    const open = join(folder, "open");
    copyFileSync(plain, open);
    chmodSync(open, 0o644);
    await expect(sign(open)).rejects.toEqual(code("ERR_KEY_REFUSED"));
  });

  test("a key that holdpoint would not accept is refused before it travels", async () => {
    const short = makeKey(folder, "short", "rsa", 1024);
    rmSync(`${short}.pub`);
    await expect(sign(short)).rejects.toEqual(code("ERR_KEY_REFUSED", /1024 bits/));
  });

  test("no ssh-keygen on the machine", async () => {
    await expect(sign(plain, { PATH: folder })).rejects.toEqual(code("ERR_KEY_REFUSED", /ENOENT/));
  });
});

describe("by agent", () => {
  let agent: Agent;
  let inAgent: Record<string, string | undefined>;
  let held: string;
  beforeEach(async () => {
    const place = makeFolder();
    agent = await startAgent(place);
    held = makeKey(place, "held", "rsa", 2048);
    agent.add(held);
    // From here on only the agent has the private key.
    rmSync(held);
    inAgent = { SSH_AUTH_SOCK: agent.socket };
  });
  afterEach(() => {
    agent.stop();
    removeFolder(join(agent.socket, ".."));
  });

  test("a public key whose private half is only in the agent", async () => {
    const { signature, fingerprint } = await sign(`${held}.pub`, inAgent);
    expect(fingerprint).toBe(fingerprintOf(held));
    const signers = `ravi namespaces="${NAMESPACE}" ${publicLine(held)}\n`;
    const check = { folder, signers, person: "ravi", namespace: NAMESPACE, bytes: BYTES };
    expect(keygenVerifies({ ...check, armored: armor(signature) })).toBe(true);
  });

  test("the key that the people know is found and signs", async () => {
    const list = peopleWith(["ravi", held]);
    const found = await findKey({
      people: list,
      home: folder,
      env: { ...env, ...inAgent },
      namespace: NAMESPACE,
      now: NOW,
    });
    expect(found).toMatchObject({ kind: "agent", person: "ravi", fingerprint: fingerprintOf(held) });
    expect((await sign(found, inAgent)).fingerprint).toBe(fingerprintOf(held));
  });

  test("--key names a key that the agent holds", async () => {
    const args = { people: [], home: folder, env: { ...env, ...inAgent }, namespace: NAMESPACE, now: NOW };
    expect(await findKey({ ...args, keyFlag: `${held}.pub` })).toMatchObject({ kind: "agent", person: null });
  });

  test("an agent that lost the key since refuses, and says so", async () => {
    const [key] = await agentKeys(agent.socket);
    if (key === undefined) throw new Error("nothing in the agent");
    const other = parsePublicKey(publicLine(plain));
    const gone: FoundKey = {
      kind: "agent",
      key: { ...key, ...other },
      fingerprint: other.fingerprint,
      person: null,
    };
    await expect(sign(gone)).rejects.toEqual(code("ERR_KEY_REFUSED", /refused to sign/));
  });
});

describe("an agent that answers nonsense", () => {
  async function withAgent(
    answer: Uint8Array | null,
    work: (socket: string) => Promise<void>,
  ): Promise<void> {
    const place = makeFolder();
    const server = createServer((s) => {
      s.on("error", () => undefined);
      s.once("data", () => (answer === null ? s.destroy() : s.end(answer)));
    });
    await new Promise<void>((resolve) => server.listen(join(place, "agent"), resolve));
    try {
      await work(join(place, "agent"));
    } finally {
      await new Promise((resolve) => server.close(resolve));
      removeFolder(place);
    }
  }

  test.each([
    ["a failure", Buffer.from([0, 0, 0, 1, 5])],
    ["an empty message", Buffer.from([0, 0, 0, 0])],
    ["a message of four gigabytes", Buffer.from([255, 255, 255, 255, 12])],
    ["more keys than it sends", Buffer.from([0, 0, 0, 5, 12, 0, 0, 0, 9])],
    ["half a length", Buffer.from([0, 0])],
    ["nothing", null],
  ])("%s: has no keys and signs nothing", async (_, answer) => {
    await withAgent(answer, async (socket) => {
      expect(await agentKeys(socket)).toEqual([]);
      const key = { ...parsePublicKey(publicLine(plain)), socket };
      const found: FoundKey = { kind: "agent", key, fingerprint: key.fingerprint, person: null };
      await expect(sign(found)).rejects.toEqual(code("ERR_KEY_REFUSED"));
    });
  });

  test("no agent has no keys", async () => {
    expect(await agentKeys(undefined)).toEqual([]);
    expect(await agentKeys(join(folder, "no-socket"))).toEqual([]);
  });
});

describe("finding the key", () => {
  let home: string;
  let mine: string;
  beforeAll(() => {
    home = makeFolder();
    mkdirSync(join(home, ".ssh"), { mode: 0o700 });
    makeKey(join(home, ".ssh"), "id_aaa");
    mine = makeKey(join(home, ".ssh"), "id_bbb");
    writeFileSync(join(home, ".ssh", "broken.pub"), "ssh-dss AAAA\n");
  });
  afterAll(() => removeFolder(home));

  const find = (list: readonly Person[], keyFlag?: string): Promise<FoundKey> =>
    findKey({ keyFlag, people: list, home, env, namespace: NAMESPACE, now: NOW });

  test("the first one in ~/.ssh that the people know for this purpose", async () => {
    const found = await find(peopleWith(["ravi", mine]));
    expect(found).toEqual({
      kind: "file",
      path: `${mine}.pub`,
      fingerprint: fingerprintOf(mine),
      person: "ravi",
    });
    expect((await sign(found)).fingerprint).toBe(fingerprintOf(mine));
  });

  test("none: names what was tried", async () => {
    await expect(find([])).rejects.toEqual(
      code("ERR_KEY_MISSING", /no agent .*2 public keys in .*\.ssh; none is known/),
    );
  });

  test("keys of two people: says so, and signs as neither", async () => {
    const both = peopleWith(["mona", join(home, ".ssh", "id_aaa")], ["ravi", mine]);
    await expect(find(both)).rejects.toEqual(code("ERR_USAGE", /id_aaa.*id_bbb/));
    expect((await find(both, mine)).person).toBe("ravi");
  });

  test("--key is taken as given, known or not", async () => {
    expect(await find([], plain)).toEqual({
      kind: "file",
      path: plain,
      fingerprint: fingerprintOf(plain),
      person: null,
    });
    await expect(find([], join(home, "nowhere"))).rejects.toEqual(code("ERR_KEY_MISSING"));
  });
});

describe("at a terminal", () => {
  const built = fileURLToPath(new URL("../../src/machine/ssh-sign.js", import.meta.url));

  /** Runs signBytes in a process of its own at a real pseudo-terminal, and types `answer` when asked. */
  function atTerminal(
    answer: string,
  ): Promise<{ readonly code: number; readonly screen: string; readonly asked: number }> {
    const script = join(folder, "sign.mjs");
    const out = join(folder, "signed.bin");
    rmSync(out, { force: true });
    writeFileSync(
      script,
      `import { signBytes } from ${JSON.stringify(built)};
       import { writeFileSync } from "node:fs";
       const bytes = Buffer.from(${JSON.stringify(BYTES.toString())});
       try {
         const { signature } = await signBytes({ bytes, namespace: ${JSON.stringify(NAMESPACE)}, key: ${JSON.stringify(locked)}, interactive: true });
         writeFileSync(${JSON.stringify(out)}, signature);
       } catch (e) { console.error(e.code); process.exitCode = 9; }`,
    );
    const pty = spawn(process.execPath, [script], {
      env: { ...env },
      cols: 100,
      rows: 30,
    });
    let screen = "";
    let asked = 0;
    return new Promise((resolve) => {
      pty.onData((data) => {
        screen += data;
        // Each question ends in a colon; one answer for each.
        if ((screen.match(/passphrase[^\n]*: ?$/gim)?.length ?? 0) > asked) {
          asked += 1;
          pty.write(`${answer}\r`);
        }
      });
      pty.onExit(({ exitCode }) => resolve({ code: exitCode, screen, asked }));
    });
  }

  test("ssh-keygen asks for the passphrase, and the signature is good", async () => {
    const { code, asked, screen } = await atTerminal(PASSPHRASE);
    expect([code, asked, screen.includes(PASSPHRASE)]).toEqual([0, 1, false]);
    const signature = readFileSync(join(folder, "signed.bin"));
    expect(verifySshsig({ bytes: BYTES, signature, namespace: NAMESPACE }).ok).toBe(true);
  });

  test("a wrong passphrase is refused", async () => {
    const { code, screen } = await atTerminal("wrong");
    expect(code).toBe(9);
    expect(screen).toContain("ERR_KEY_REFUSED");
  });
});
