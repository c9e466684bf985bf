/** Paths as people read them: from where they are. */
import { isAbsolute, relative, sep } from "node:path";

/** `path` from `cwd` on where it lies below it; else as it is. Documents always have the whole path. */
export function nearPath(cwd: string, path: string): string {
  const near = relative(cwd, path);
  return near === "" || isAbsolute(near) || near === ".." || near.startsWith(`..${sep}`) ? path : near;
}
