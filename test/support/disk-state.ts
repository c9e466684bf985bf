/** What a killed process leaves: the files of a project as they are on the disk. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** What no act writes, and an index that SQLite makes anew when nobody has the file open. */
const LEFT_OUT = /^(saved|keys|home|policies|people|jobs)|-shm$/;

/** One digest of names and bytes of everything in the folder that an act may write. Equal digests: nothing was written in between. */
export function diskState(dir: string): string {
  const hash = createHash("sha1");
  const walk = (folder: string, path: string): void => {
    const entries = readdirSync(folder, { withFileTypes: true });
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const name = `${path}${entry.name}`;
      if (LEFT_OUT.test(name)) continue;
      hash.update(`\0${name}\0`);
      const there = join(folder, entry.name);
      if (entry.isDirectory()) walk(there, `${name}/`);
      else if (entry.isFile()) hash.update(readFileSync(there));
    }
  };
  walk(dir, "");
  return hash.digest("hex");
}
