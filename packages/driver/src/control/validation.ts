/**
 * Checks what comes in against the API's schemas. Each is compiled when the first request needs it:
 * compiling all of them, and loading what compiles them, is a third of the time until a daemon serves,
 * and after a crash that is time in which fronts wait.
 */
import { createRequire } from "node:module";
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

function loadCompiler(): Ajv {
  // Synchronous, because a validator is: a promise would be one more turn for every request.
  const loaded = createRequire(import.meta.url)("ajv") as typeof import("ajv");
  return new loaded.Ajv(OPTIONS);
}

/** A validator of `schema`, compiled at its first use, which throws where the schema is not one. */
export function validatorOf(schema: object): Validator {
  let compiled: ValidateFunction | undefined;
  const validator: Validator = (data) => {
    compiler ??= loadCompiler();
    compiled ??= compiler.compile(schema as SchemaObject);
    const isValid = compiled(data);
    validator.errors = compiled.errors;
    return isValid;
  };
  return validator;
}
