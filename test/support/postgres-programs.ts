/** PostgreSQL's own programs behind scripts that first do what a test wants: note something, or wait. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findServers } from "./postgres.js";

const PROGRAMS = ["pg_dump", "pg_restore", "initdb", "postgres"] as const;
type Program = (typeof PROGRAMS)[number];

/** The folder of a program of PostgreSQL; null where it is not here. */
export function folderOf(program: Program): string | null {
  const folders = [...findServers().map((kind) => kind.bin), "/usr/bin"];
  return folders.find((at) => existsSync(join(at, program))) ?? null;
}

/**
 * Makes a folder with these; `first` are lines of shell that run before a program does its work (not when it is
 * asked for its version).
 */
export function wrapPrograms(
  folder: string,
  first: Partial<Record<Program, string>>,
  programs: readonly Program[] = PROGRAMS,
): string {
  mkdirSync(folder);
  for (const program of programs) {
    const at = folderOf(program);
    if (at === null) continue;
    const text = `#!/bin/sh\n[ "$1" = --version ] || {\n${first[program] ?? ":"}\n}\nexec '${at}/${program}' "$@"\n`;
    writeFileSync(join(folder, program), text, { mode: 0o755 });
  }
  return folder;
}
