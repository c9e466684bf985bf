/**
 * The files of a first project, as text. Pure: the operation writes them, and never over a file that exists.
 * What is written reads back: each text goes through the reader of its format before it is returned.
 */
import { stringify } from "yaml";
import { NAME_PATTERN, parseAllowedSigners } from "../approval/allowed-signers.js";
import { parsePublicKey } from "../approval/public-key.js";
import { NAMESPACES } from "../approval/requirement.js";
import { UsageError } from "../base/errors.js";
import type { Environment } from "../environment/evidence.js";
import { CONFIG_FILE, parseConfig } from "./config.js";
import { parseGroups } from "./people-file.js";

/** What `init` was told. */
export interface ScaffoldAnswers {
  readonly target: { readonly name: string; readonly url: string; readonly environment: Environment };
  /** The content of a `.pub` file for each; a person may stand here with several keys. */
  readonly people: readonly { readonly name: string; readonly publicKey: string }[];
  /** The shipped policies: paths relative to `policies/`. */
  readonly policies: readonly { readonly path: string; readonly content: string }[];
}

/** One file of the project, its path relative to the project's folder. */
export interface ScaffoldFile {
  readonly path: string;
  readonly content: string;
  /** `file`: written where there is none. `line`: `content` is one line, added to the file unless it has it. */
  readonly form: "file" | "line";
}

/**
 * The files of a first project.
 * @throws UsageError ERR_USAGE for a name that no format can hold or a key file that is none, and
 * ERR_CONFIG_INVALID for a url that holds a password or cannot be read back.
 */
export function scaffold(answers: ScaffoldAnswers): readonly ScaffoldFile[] {
  const config = configText(answers);
  parseConfig(config, `/${CONFIG_FILE}`);
  const signers = signersText(answers.people);
  parseAllowedSigners(signers, "people/allowed_signers");
  parseGroups(GROUPS, "people/groups.yaml");
  return [
    { path: CONFIG_FILE, content: config, form: "file" },
    ...answers.policies.map((p) => ({
      path: `policies/${p.path}`,
      content: p.content,
      form: "file" as const,
    })),
    { path: "people/allowed_signers", content: signers, form: "file" },
    { path: "people/groups.yaml", content: GROUPS, form: "file" },
    { path: "jobs/hello.sql", content: HELLO, form: "file" },
    { path: ".gitignore", content: ".holdpoint/", form: "line" },
  ];
}

function configText({ target }: ScaffoldAnswers): string {
  // The name stands as a bare key: only what needs no quotes may come here.
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(target.name)) {
    throw badName("target", target.name, "use letters, digits and . _ -, 64 at most");
  }
  if (target.url.trim() === "") throw badName("url", target.url, "a url is needed: empty never means all");
  return `# What holdpoint guards. Every key: docs/configuration.md
targets:
  ${bareKey(target.name)}:
    url: ${stringify(target.url, { lineWidth: 0 }).trim()}
    environment: ${target.environment} # a claim, checked against the evidence; it can raise, never lower
    foreign_keys: true
    # append_only: [audit_log]   tables that an undo adds a reversing row to, and never deletes from
    # mask: [customers.email]    columns whose values are never shown

jobs:
  hello:
    sql: jobs/hello.sql
  # purge-idle:
  #   sql: jobs/purge-idle.sql
  #   params: { older_than_days: { type: integer, minimum: 30 } }
  #   scope: [sessions]                          # any effect outside is refused
  #   expect: { sessions: { delete: 1..5000 } }

policies: policies/
people: people/allowed_signers # groups stand in people/groups.yaml
store: .holdpoint/ # ledger, plans, snapshots; not for the repository
`;
}

/** A name of digits alone, or `true`, would be read as something else than text. */
function bareKey(name: string): string {
  return stringify(name).trim();
}

function signersText(people: ScaffoldAnswers["people"]): string {
  const namespaces = Object.values(NAMESPACES).join(",");
  const lines = people.map(
    ({ name, publicKey }) => `${name} namespaces="${namespaces}" ${keyFields(name, publicKey)}\n`,
  );
  return `# Who may sign: one line for each key, in OpenSSH's allowed-signers format.
# A person is found by key, never by a name that somebody claims. See ssh-keygen(1).
${lines.join("")}`;
}

function keyFields(name: string, publicKey: string): string {
  if (!NAME_PATTERN.test(name)) throw badName("person", name, "use letters, digits and . _ + @ : / = -");
  const text = publicKey.trim();
  if (/PRIVATE KEY/.test(text)) throw badKey(name, "this is a private key: name the file that ends in .pub");
  if (/[\r\n]/.test(text)) throw badKey(name, "a public key is one line, and this has several");
  const key = parsePublicKey(text);
  if (key.certificate) throw badKey(name, "this is a certificate: name the key that it certifies");
  const comment = /^[A-Za-z0-9._@+ -]+$/.test(key.comment) ? ` ${key.comment}` : "";
  return `${key.type} ${Buffer.from(key.blob).toString("base64")}${comment}`;
}

const GROUPS = `# Groups that policies ask for. A person may stand in several.
# groups:
#   dba: [ravi, lee]
groups: {}
`;

const HELLO = `-- A job that changes nothing: your first plan has 0 rows.
SELECT 'hello' AS greeting;
`;

function badName(what: string, name: string, why: string): UsageError {
  return new UsageError({ code: "ERR_USAGE", message: `${JSON.stringify(name)} is no ${what}`, why });
}

function badKey(name: string, why: string): UsageError {
  return new UsageError({ code: "ERR_USAGE", message: `the key file of ${name} is no public key`, why });
}
