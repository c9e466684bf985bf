/**
 * The address of a target as it stands in `url`: text with `${VARIABLE}` in it, the only place of the
 * configuration where a variable is read. A password never stands in the file.
 */
import { isAbsolute, resolve } from "node:path";
import { UsageError } from "../base/errors.js";

/** Where a part of a connection value came from: shown, because inherited values mislead. */
export interface ValueOrigin {
  /** The part as it stands in the file: `sqlite:`, `${ELB_PROD_URL}`. Never a variable's value. */
  readonly part: string;
  /** `holdpoint.yaml:3:10`, or `environment variable ELB_PROD_URL (holdpoint.yaml:3:10)`. */
  readonly from: string;
  /** Whether it was inherited from the environment of the shell. */
  readonly inherited: boolean;
}

/** What an address leads to. */
export type TargetKind =
  | { readonly kind: "sqlite"; readonly path: string }
  | { readonly kind: "postgres"; readonly url: string };

/** Variables of the environment. */
export type Environ = Readonly<Record<string, string | undefined>>;

const VARIABLE = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;
// What `fill` leaves in place of variables when only the literal text is looked at.
const PLACEHOLDER = "\u0000";

/** What is wrong with a `url` as it stands in the file, in words that never repeat it; null when nothing is. */
export function urlFault(template: string): string | null {
  const literal = template.replaceAll(VARIABLE, PLACEHOLDER);
  if (literal.includes("$"))
    return "has a $ that begins no variable: write ${NAME}, or %24 for a dollar sign";
  if (literal.startsWith("sqlite:")) return null;
  const [, credentials = ""] = /^[^/]*:\/\/([^/?#]*)@/.exec(literal) ?? [];
  const colon = credentials.indexOf(":");
  const inUserinfo = colon >= 0 && credentials.slice(colon + 1).replaceAll(PLACEHOLDER, "") !== "";
  const [, inQuery = ""] = /[?&](?:[a-z]*password|passwd|pwd)=([^&#]*)/i.exec(literal) ?? [];
  if (!inUserinfo && inQuery.replaceAll(PLACEHOLDER, "") === "") return null;
  return "holds a password: put it, or the whole url, into a variable such as ${DATABASE_URL}";
}

/**
 * Fills in the variables.
 * @param at where the url stands, `file:line:column`.
 * @param key what it is called there.
 * @throws UsageError ERR_CONFIG_VARIABLE for a variable that is not set or blank, or has control characters.
 */
export function fillUrl(
  template: string,
  env: Environ,
  at: string,
  target: string,
  key = "url",
): { readonly url: string; readonly origins: readonly ValueOrigin[] } {
  const origins: ValueOrigin[] = [];
  let url = "";
  for (const [i, part] of template.split(VARIABLE).entries()) {
    // Split with one group: every second part is the name of a variable.
    if (i % 2 === 1) {
      url += valueOf(part, env, at, `${key} of ${target}`);
      origins.push({ part: `\${${part}}`, from: `environment variable ${part} (${at})`, inherited: true });
    } else if (part !== "") {
      url += part;
      origins.push({ part, from: at, inherited: false });
    }
  }
  return { url, origins };
}

function valueOf(name: string, env: Environ, at: string, whose: string): string {
  const value = env[name];
  if (value === undefined || value.trim() === "") {
    throw new UsageError({
      code: "ERR_CONFIG_VARIABLE",
      message: `the variable ${name} is ${value === undefined ? "not set" : "blank"}, and the ${whose} needs it`,
      why: `${at} names it; a blank value is refused: empty never means all`,
      next: [
        {
          actor: "requester",
          text: `Set ${name} in this shell, or have your secret store set it, and run the command again.`,
        },
      ],
    });
  }
  if (/[\u0000-\u001f\u007f]/.test(value)) {
    throw new UsageError({
      code: "ERR_CONFIG_VARIABLE",
      message: `the variable ${name} has a line break or control character, and the ${whose} needs it`,
      why: `${at} names it; an address is one line`,
    });
  }
  return value;
}

/**
 * Which adapter an address belongs to. A relative SQLite path is relative to `root`. Errors name the scheme,
 * never the address.
 * @throws UsageError ERR_TARGET_UNSUPPORTED for any other scheme, and for forms of `sqlite:` that could be read two ways.
 */
export function targetKind(url: string, root: string): TargetKind {
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(url)?.[1]?.toLowerCase();
  if (scheme === "sqlite") return { kind: "sqlite", path: sqlitePath(url.slice("sqlite:".length), root) };
  if (scheme === "postgres" || scheme === "postgresql") return { kind: "postgres", url };
  throw unsupported(
    scheme === undefined
      ? "the url of this target names no kind of target"
      : `targets of the kind ${scheme} are not supported`,
    "a url begins with sqlite: or postgres://",
  );
}

function sqlitePath(text: string, root: string): string {
  const path = text.startsWith("///") ? text.slice(2) : text;
  if (path.trim() === "")
    throw unsupported("the url of this target names no file", "it is sqlite: and nothing after it");
  if (path.startsWith("//"))
    throw unsupported("the url of this target names a host", "an SQLite file is written sqlite:PATH");
  if (path.startsWith("~"))
    throw unsupported(
      "the url of this target begins with ~",
      "only a shell knows that sign: write the path out",
    );
  if (path.startsWith(":"))
    throw unsupported("the url of this target names a database in memory", "it would be empty for everyone");
  if (/[?#]/.test(path))
    throw unsupported("the url of this target has options", "an SQLite file is written sqlite:PATH");
  return isAbsolute(path) ? path : resolve(root, path);
}

function unsupported(message: string, why: string): UsageError {
  return new UsageError({ code: "ERR_TARGET_UNSUPPORTED", message, why });
}
