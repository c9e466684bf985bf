/** As much of JSON Schema as the published schemas use: enough to hold a document against one. */

/** What does not fit, by its path; empty when everything does. */
export function misfits(schema: unknown, value: unknown, at = "$"): string[] {
  const s = schema as Readonly<Record<string, unknown>>;
  const anyOf = s["anyOf"] as readonly unknown[] | undefined;
  if (anyOf !== undefined) {
    const all = anyOf.map((one) => misfits(one, value, at));
    return all.some((m) => m.length === 0) ? [] : (all[0] ?? []);
  }
  if ("const" in s) return s["const"] === value ? [] : [`${at} is not ${String(s["const"])}`];
  const words = s["enum"] as readonly unknown[] | undefined;
  if (words !== undefined) return words.includes(value) ? [] : [`${at} is none of ${words.join(", ")}`];
  const type = s["type"] as string | undefined;
  if (type !== undefined && !isOf(type, value)) return [`${at} is no ${type}`];
  const pattern = s["pattern"] as string | undefined;
  if (pattern !== undefined && !new RegExp(pattern).test(String(value)))
    return [`${at} is not like ${pattern}`];
  return [...membersOf(s, value, at), ...itemsOf(s, value, at)];
}

function isOf(type: string, value: unknown): boolean {
  switch (type) {
    case "array":
      return Array.isArray(value);
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    case "null":
      return value === null;
    default:
      return typeof value === type;
  }
}

function membersOf(s: Readonly<Record<string, unknown>>, value: unknown, at: string): string[] {
  if (!isOf("object", value)) return [];
  const fields = value as Readonly<Record<string, unknown>>;
  const required = (s["required"] ?? []) as readonly string[];
  const missing = required.filter((name) => !(name in fields)).map((name) => `${at}.${name} is missing`);
  const known = Object.entries((s["properties"] ?? {}) as Readonly<Record<string, unknown>>);
  return [
    ...missing,
    ...known.flatMap(([name, member]) =>
      name in fields ? misfits(member, fields[name], `${at}.${name}`) : [],
    ),
  ];
}

function itemsOf(s: Readonly<Record<string, unknown>>, value: unknown, at: string): string[] {
  if (!Array.isArray(value) || s["items"] === undefined) return [];
  return value.flatMap((item: unknown, i) => misfits(s["items"], item, `${at}[${i}]`));
}
