/**
 * Checks what comes in against the API's schemas. Each is compiled when the first request needs it:
 * compiling all of them, and loading what compiles them, is a third of the time until a daemon serves,
 * and after a crash that is time in which fronts wait.
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

/** As the framework wants it: false where `data` is not valid, and then `errors` tells why. */
export interface Validator {
  (data: unknown): boolean;
  errors?: unknown;
}

let compiler: Ajv | undefined;

/** Loads what compiles schemas. To be waited for before a validator is used: those cannot wait. */
export async function prepareValidation(): Promise<void> {
  // Of a CommonJS module a bundle knows the default export only.
  const { default: ajv } = await import("ajv");
  compiler ??= new ajv.Ajv(OPTIONS);
}

/**
 * A validator of `schema`, compiled at its first use, which throws where the schema is not one. After
 * prepareValidation().
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
