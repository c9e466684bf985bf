/** The few words that the published JSON Schemas are written in. */

/** A JSON Schema. */
export type Schema = Readonly<Record<string, unknown>>;

/** Text. */
export const text: Schema = { type: "string" };
/** A whole number. */
export const whole: Schema = { type: "integer" };
/** True or false. */
export const flag: Schema = { type: "boolean" };

/** A list of these. */
export function list(items: Schema): Schema {
  return { type: "array", items };
}

/** This, or null. */
export function orNull(schema: Schema): Schema {
  return { anyOf: [schema, { type: "null" }] };
}

/** One of these words. */
export function one(...words: readonly string[]): Schema {
  return { enum: words };
}

/** An object with these fields; those ending in `?` may be absent, and others may be there. */
export function object(fields: Readonly<Record<string, Schema>>): Schema {
  const entries = Object.entries(fields).map(([name, schema]) => [name.replace(/\?$/, ""), schema] as const);
  const required = Object.keys(fields).filter((name) => !name.endsWith("?"));
  return { type: "object", properties: Object.fromEntries(entries), required };
}
