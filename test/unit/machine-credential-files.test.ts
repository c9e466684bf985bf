/** Files that lead to a target without holdpoint: where they are is told, never what stands in them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "@jest/globals";
import { credentialFiles } from "../../src/machine/credential-files.js";
import { inFolder } from "../support/temporary.js";

const ADDRESS = "postgres://app@db1.example:5432/shop";

const cases: readonly (readonly [string, string, string, readonly string[]])[] = [
  [
    "a dotenv line",
    ".env",
    "A=1\nDATABASE_URL=postgres://root:s3cret@db1.example/shop\n",
    [".env:2 DATABASE_URL"],
  ],
  [
    "a quoted, exported one",
    ".env.local",
    "export U='postgresql://x@DB1.example:5432/shop'\n",
    [".env.local:1 U"],
  ],
  ["another database", ".env", "U=postgres://x@db1.example/other\n", []],
  ["another port", ".env", "U=postgres://x@db1.example:6000/shop\n", []],
  ["a comment", ".env", "# U=postgres://x@db1.example/shop\n", []],
  ["a file that is no dotenv file", "environment.txt", "U=postgres://x@db1.example/shop\n", []],
  ["a password", "home/.pgpass", "other:5432:shop:x:y\ndb1.example:5432:shop:app:s3cret\n", ["~/.pgpass:2"]],
  ["a password for all", "home/.pgpass", "*:*:*:app:s3cret\n", ["~/.pgpass:1"]],
  ["a password for another", "home/.pgpass", "db1.example:6000:shop:app:s3cret\n", []],
  ["a line without one", "home/.pgpass", "db1.example:5432:shop:app\n", []],
  [
    "a service",
    "home/.pg_service.conf",
    "[a]\nhost=x\n[b]\nhost=db1.example\ndbname=shop\n",
    ["~/.pg_service.conf:3"],
  ],
  ["a service elsewhere", "home/.pg_service.conf", "[b]\nhost=db2.example\ndbname=shop\n", []],
];

test.each(cases)("%s", (_name, file, text, where) =>
  inFolder((root) => {
    mkdirSync(join(root, "home"));
    writeFileSync(join(root, file), text);
    const found = credentialFiles({ address: ADDRESS, root, home: join(root, "home"), env: {} });
    expect(found.map((f) => f.where)).toEqual(where);
    expect(JSON.stringify(found)).not.toContain("s3cret");
  }),
);
