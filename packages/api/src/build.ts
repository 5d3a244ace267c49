/** Builders for JSON schemas that cannot omit "required" or allow unknown fields. */
import type { JSONSchema } from "json-schema-to-ts";

type Properties = Readonly<Record<string, JSONSchema>>;

/** An object that must have all of these properties, and no others. */
export function record<const P extends Properties>(properties: P) {
  return {
    type: "object",
    properties,
    required: Object.keys(properties) as unknown as readonly (keyof P & string)[],
    additionalProperties: false,
  } as const;
}

/** An object with required and optional properties, and no others. */
export function recordWithOptional<const P extends Properties, const O extends Properties>(
  properties: P,
  optional: O,
) {
  return {
    type: "object",
    properties: { ...properties, ...optional },
    required: Object.keys(properties) as unknown as readonly (keyof P & string)[],
    additionalProperties: false,
  } as const;
}

/** An array of any number of `items`. */
export function list<const S extends JSONSchema>(items: S) {
  return { type: "array", items } as const;
}
