/** Carries errors from a reactor's thread, with their class, code and errno. */
import { EngineError, type EngineErrorCode } from "@blksnap/engine";
import { UblkError, type UblkErrorCode } from "@blksnap/ublk";

export interface CarriedError {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly errno?: number;
}

export function carriedError(error: unknown): CarriedError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { code, errno } = error as NodeJS.ErrnoException;
  return {
    name: error.name,
    message: error.message,
    ...(typeof code === "string" ? { code } : {}),
    ...(typeof errno === "number" ? { errno } : {}),
  };
}

/** Rebuilds the error on this side. */
export function errorFrom({ name, message, code, errno }: CarriedError): Error {
  if (name === "EngineError") return new EngineError(code as EngineErrorCode, message);
  if (name === "UblkError") {
    // The message already names the errno.
    return Object.assign(new UblkError(code as UblkErrorCode, message), { errno: errno ?? 0 });
  }
  const error = new Error(message);
  error.name = name;
  if (code !== undefined) Object.assign(error, { code });
  if (errno !== undefined) Object.assign(error, { errno });
  return error;
}
