/**
 * Validates input against the API's schemas. Each is compiled when the first request needs it: to load the compiler
 * and compile all of them is a third of the time until a daemon serves, for which fronts wait after a crash.
 */
import { strict as assert } from "node:assert";
import type { Ajv, Options, SchemaObject, ValidateFunction } from "ajv";

const OPTIONS: Options = {
  coerceTypes: false,
  removeAdditional: false,
  useDefaults: false,
  allErrors: false,
  addUsedSchema: false,
};

/** As the framework expects: false if `data` is invalid, with the reasons in `errors`. */
export interface Validator {
  (data: unknown): boolean;
  errors?: unknown;
}

let compiler: Ajv | undefined;

/** Loads the compiler of schemas. Await it before a validator is used: validators are synchronous. */
export async function prepareValidation(): Promise<void> {
  // A bundle sees only the default export of a CommonJS module.
  const { default: ajv } = await import("ajv");
  compiler ??= new ajv.Ajv(OPTIONS);
}

/**
 * A validator of `schema`, compiled at its first use, which throws if the schema is invalid. Await
 * prepareValidation() first.
 */
export function validatorOf(schema: object): Validator {
  let compiled: ValidateFunction | undefined;
  const validator: Validator = (data) => {
    assert(compiler !== undefined, "a request is validated before that was prepared");
    compiled ??= compiler.compile(schema as SchemaObject);
    const isValid = compiled(data);
    validator.errors = compiled.errors;
    return isValid;
  };
  return validator;
}
