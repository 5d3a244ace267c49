/** Addresses of exports: `nbd+unix:///EXPORT?socket=PATH`. */
import { NbdError } from "./errors.js";

export interface ExportAddress {
  readonly socketPath: string;
  readonly exportName: string;
}

export function nbdUri(socketPath: string, exportName: string): string {
  const socket = encodeURIComponent(socketPath).replaceAll("%2F", "/");
  // A slash in a name is one in the address.
  const name = encodeURIComponent(exportName).replaceAll("%2F", "/");
  return `nbd+unix:///${name}?socket=${socket}`;
}

/** @throws NbdError BAD_URI */
export function parseNbdUri(uri: string): ExportAddress {
  const bad = (why: string): NbdError => new NbdError("BAD_URI", `"${uri}": ${why}`);
  const parsed = URL.canParse(uri) ? new URL(uri) : undefined;
  if (parsed?.protocol !== "nbd+unix:") throw bad("no nbd+unix:///EXPORT?socket=PATH");
  const socketPath = parsed.searchParams.get("socket");
  if (socketPath === null || socketPath === "") throw bad("it names no socket");
  try {
    return { socketPath, exportName: decodeURIComponent(parsed.pathname.replace(/^\//, "")) };
  } catch {
    throw bad("its name cannot be decoded");
  }
}
