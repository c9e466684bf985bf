/** The version of this package, read from its own `package.json` beside the compiled files. */
import { readFileSync } from "node:fs";

/** `0.1.0`. */
export function versionText(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  const parsed: unknown = JSON.parse(text);
  if (
    typeof parsed === "object" &&
    parsed !== null &&
    "version" in parsed &&
    typeof parsed.version === "string"
  ) {
    return parsed.version;
  }
  return "unknown";
}
