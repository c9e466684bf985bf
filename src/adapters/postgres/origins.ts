/** Which parts of an address the url leaves to the `PG*` variables, as every client of PostgreSQL fills them in. */
import { parseAddress } from "./address.js";

/** A part that a variable filled in; the value itself is not told. */
export interface VariablePart {
  readonly part: string;
  readonly variable: string;
}

const PARTS: readonly VariablePart[] = [
  { part: "host", variable: "PGHOST" },
  { part: "port", variable: "PGPORT" },
  { part: "user", variable: "PGUSER" },
  { part: "database", variable: "PGDATABASE" },
  { part: "password", variable: "PGPASSWORD" },
  { part: "sslmode", variable: "PGSSLMODE" },
];

/** The parts that would be others if the variable held something else: so nothing that the url says itself. */
export function partsFromVariables(
  url: string,
  env: Readonly<Record<string, string | undefined>>,
): readonly VariablePart[] {
  const set = PARTS.filter(({ variable }) => (env[variable] ?? "") !== "");
  return set.filter(({ variable }) => {
    const others = OTHERS.filter((other) => other !== env[variable]);
    return others.some((other) => addressWith(url, env, variable, other) !== addressWith(url, env));
  });
}

/** Values that are valid for every part, so that parsing never stops at them; a mode of TLS is the only choice of words. */
const OTHERS = ["1", "disable", "require"] as const;

function addressWith(
  url: string,
  env: Readonly<Record<string, string | undefined>>,
  variable?: string,
  value?: string,
): string {
  try {
    return JSON.stringify(
      parseAddress(url, variable === undefined ? env : { ...env, [variable]: value }, "login"),
    );
  } catch {
    return "not an address";
  }
}
