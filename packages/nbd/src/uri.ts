/** Addresses of exports: `nbd+unix:///EXPORT?socket=PATH`, `nbds://HOST:PORT/EXPORT?tls-certificates=DIR`. */
import { NbdError } from "./errors.js";

/** Of NBD, at IANA. */
const PORT = 10_809;

export interface UnixServer {
  readonly socketPath: string;
}

export interface TcpServer {
  readonly host: string;
  readonly port: number;
  /**
   * Present with TLS: folder with the CA and the client's certificate, or "" for the CAs that Node knows. Absent:
   * without TLS.
   */
  readonly certificates?: string;
}

export type NbdServerAddress = UnixServer | TcpServer;
export type ExportAddress = NbdServerAddress & { readonly exportName: string };

export function nbdUri(socketPath: string, exportName: string): string {
  const socket = encodeURIComponent(socketPath).replaceAll("%2F", "/");
  // A slash in a name stays a slash in the address.
  const name = encodeURIComponent(exportName).replaceAll("%2F", "/");
  return `nbd+unix:///${name}?socket=${socket}`;
}

function serverOf(uri: URL): NbdServerAddress | string {
  const { protocol, searchParams } = uri;
  if (protocol === "nbd+unix:") {
    const socketPath = searchParams.get("socket") ?? "";
    return socketPath === "" ? "it names no socket" : { socketPath };
  }
  if (protocol !== "nbd:" && protocol !== "nbds:") return "no nbd+unix://, nbd:// or nbds://";
  if (uri.hostname === "") return "it names no host";
  const host = uri.hostname.replace(/^\[(.*)\]$/, "$1");
  const port = uri.port === "" ? PORT : Number(uri.port);
  if (protocol === "nbd:") return { host, port };
  return { host, port, certificates: searchParams.get("tls-certificates") ?? "" };
}

/** @throws NbdError BAD_URI */
export function parseNbdUri(uri: string): ExportAddress {
  const bad = (why: string): NbdError => new NbdError("BAD_URI", `"${uri}": ${why}`);
  if (!URL.canParse(uri)) throw bad("no nbd+unix:///EXPORT?socket=PATH");
  const parsed = new URL(uri);
  const server = serverOf(parsed);
  if (typeof server === "string") throw bad(server);
  try {
    return { ...server, exportName: decodeURIComponent(parsed.pathname.replace(/^\//, "")) };
  } catch {
    throw bad("its name cannot be decoded");
  }
}
