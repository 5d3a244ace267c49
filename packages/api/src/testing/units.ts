/** For tests: checks that each number in JSON names its unit. */

const UNIT = /_(bytes|bytes_per_s|ms|us)$/;

/** Counts and numbers without a unit. A number with a unit has it in its name, and is not listed here. */
export const WITHOUT_UNIT: readonly string[] = [
  // Counts.
  "blocked_writes",
  "blocked_writes_now",
  "block_count",
  "buckets",
  "changed_blocks",
  "chunks_used",
  "connections",
  "count",
  "devices",
  "discards",
  "errors",
  "events_pending",
  "flushes",
  "late_io",
  "lost_ranges_total",
  "ranges",
  "reactors",
  "reads",
  "refused",
  "refused_writes",
  "stalls",
  "writes",
  // Identifiers.
  "changes_number",
  "errno",
  "error_code",
  "first_block",
  "line",
  "from",
  "index",
  "major",
  "minor",
  "next_pid",
  "pid",
  "port",
  "reactor",
  "sequence",
  "since",
];

function saysUnit(name: string): boolean {
  return UNIT.test(name) || WITHOUT_UNIT.includes(name);
}

interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

export interface NumericField {
  readonly name: string;
  /** The location, for a message. */
  readonly path: string;
}

function typesOf({ type = [] }: Schema): readonly string[] {
  return typeof type === "string" ? [type] : type;
}

/** All numeric fields of a schema. @param name of the field that the schema describes */
export function numericFields(schema: object, path: string, name = ""): NumericField[] {
  const { properties = {}, items, anyOf = [] } = schema as Schema;
  const types = typesOf(schema as Schema);
  const isNumeric = types.includes("integer") || types.includes("number");
  return [
    ...(isNumeric ? [{ name, path }] : []),
    ...Object.entries(properties).flatMap(([key, property]) =>
      numericFields(property, `${path}.${key}`, key),
    ),
    ...(items === undefined ? [] : numericFields(items, `${path}[]`, name)),
    ...anyOf.flatMap((choice) => numericFields(choice, path, name)),
  ];
}

/** Locations in a schema of numbers without a unit. */
export function fieldsWithoutUnit(schema: object, path: string, name?: string): string[] {
  return numericFields(schema, path, name)
    .filter((field) => !saysUnit(field.name))
    .map((field) => field.path);
}

/** Locations in a document of numbers that are not integers or do not name their unit. */
export function numbersWithoutUnit(document: unknown, path: string, name = ""): string[] {
  if (typeof document === "number") {
    return Number.isSafeInteger(document) && saysUnit(name) ? [] : [`${path} = ${document}`];
  }
  if (Array.isArray(document)) {
    return document.flatMap((item) => numbersWithoutUnit(item, `${path}[]`, name));
  }
  return Object.entries((document ?? {}) as object).flatMap(([key, value]) =>
    typeof document === "string" ? [] : numbersWithoutUnit(value, `${path}.${key}`, key),
  );
}
