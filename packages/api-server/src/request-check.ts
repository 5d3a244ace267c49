/** Prepares and reports schema validation: converts numbers in queries, and words its errors in one line. */
import type { ErrorName } from "@blksnap/api";
import { ControlError, eventSchemas, STORE_WORDS } from "@blksnap/api";

const { LAST_EVENT_ID } = eventSchemas;

interface QuerySchema {
  readonly properties?: Readonly<Record<string, { readonly type?: unknown }>>;
}

/**
 * Converts the texts of a query to numbers and booleans where its schema requires them. Only plain decimal digits,
 * `true` and `false` are converted; validation refuses all other text.
 */
export function coerceQuery(query: unknown, schema: unknown): void {
  const properties = (schema as QuerySchema | undefined)?.properties;
  if (properties === undefined || typeof query !== "object" || query === null) return;
  const values = query as Record<string, unknown>;
  for (const [name, value] of Object.entries(values)) {
    const wanted = Object.hasOwn(properties, name) ? properties[name]?.type : undefined;
    if (typeof value !== "string") continue;
    if (wanted === "integer" && /^[0-9]{1,19}$/.test(value)) values[name] = Number(value);
    if (wanted === "boolean" && /^(true|false)$/.test(value)) values[name] = value === "true";
  }
}

interface SchemaFault {
  readonly instancePath: string;
  readonly keyword: string;
  readonly params: { readonly missingProperty?: unknown; readonly additionalProperty?: unknown };
  readonly message?: string | undefined;
}

/** Names can be as long as a body, which is too long for an error message. */
const QUOTED_NAME_MAX = 64;

function quoted(name: unknown): string {
  return `'${String(name).slice(0, QUOTED_NAME_MAX)}'`;
}

function nameOf(field: string): ErrorName {
  if (field === "limit_bytes") return "LIMIT_INVALID";
  if (field === "id" || field === "generation") return "ID_INVALID";
  return "REQUEST_INVALID";
}

/** The first error of validation, worded for the client. */
export function validationError(faults: readonly SchemaFault[], part: string): ControlError {
  const fault = faults[0];
  if (fault === undefined) return new ControlError("REQUEST_INVALID", `the ${part} is not valid`);
  const field = fault.instancePath.split("/").findLast((step) => /[a-z]/.test(step)) ?? "";
  const where = fault.instancePath === "" ? part : quoted(fault.instancePath.slice(1));
  let why = fault.message ?? "is not valid";
  if (fault.keyword === "required") why = `lacks ${quoted(fault.params.missingProperty)}`;
  if (fault.keyword === "additionalProperties") {
    why = `has an unknown field ${quoted(fault.params.additionalProperty)}`;
  }
  if (fault.keyword === "pattern") why = `is not ${form(field)}`;
  return new ControlError(nameOf(field), `${where} ${why}`);
}

function form(field: string): string {
  if (field === "id" || field === "generation") return "a uuid";
  if (field === "reader") return "a name: letters, digits and _.:@-, 64 at most";
  if (field === LAST_EVENT_ID) return "a sequence number";
  return field === "stores" ? `an absolute path or ${STORE_WORDS.join(", ")}` : "an absolute path";
}
