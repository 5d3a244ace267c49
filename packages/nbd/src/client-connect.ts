/** How a client comes to a server, by whatever way, with TLS where the address wants it. */
import { connect, isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { ClientHandshake } from "./client-handshake.js";
import { NbdError } from "./errors.js";
import { SocketReader } from "./socket-reader.js";
import { clientCertificates, tlsReason } from "./tls-files.js";
import type { NbdServerAddress, TcpServer } from "./uri.js";

/** A connection that is ready for options. */
export interface Greeted {
  readonly socket: Socket;
  readonly reader: SocketReader;
  readonly handshake: ClientHandshake;
}

export function silent(who: string): NbdError {
  return new NbdError("TIMED_OUT", `${who} says nothing`);
}

function nameOf(address: NbdServerAddress): string {
  return "socketPath" in address ? address.socketPath : `${address.host}:${address.port}`;
}

/** Until it is there, with a time for silence. */
async function connected(socket: Socket, event: string, name: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once(event, resolve);
    socket.once("error", (error: NodeJS.ErrnoException) => {
      const known = error instanceof NbdError ? error : undefined;
      const { errno = 0 } = error;
      const why = tlsReason(error);
      reject(known ?? new NbdError("CONNECT_FAILED", `${name}: ${why}`, errno, error));
    });
  });
}

function limitSilence(socket: Socket, timeoutMs: number, name: string): void {
  socket.setTimeout(timeoutMs);
  socket.on("timeout", () => socket.destroy(silent(name)));
}

/** @throws NbdError CERTIFICATES_UNUSABLE, CONNECT_FAILED, HANDSHAKE_REFUSED, TIMED_OUT */
async function withTls(
  { socket, reader, handshake }: Greeted,
  server: TcpServer & { readonly certificates: string },
  timeoutMs: number,
): Promise<Greeted> {
  const { host, certificates } = server;
  const context = certificates === "" ? {} : clientCertificates(certificates);
  await handshake.startTls();
  reader.release();
  socket.setTimeout(0);
  const servername = isIP(host) === 0 ? host : "";
  const secure: TLSSocket = connectTls({ ...context, socket, host, servername });
  limitSilence(secure, timeoutMs, nameOf(server));
  try {
    await connected(secure, "secureConnect", nameOf(server));
  } catch (error) {
    secure.destroy();
    throw error;
  }
  const secured = new SocketReader(secure);
  return { socket: secure, reader: secured, handshake: new ClientHandshake(secure, secured) };
}

/**
 * Connects, and has `use` shake hands; the socket is destroyed where that fails.
 * @param timeoutMs for which the server may be silent
 */
export async function withHandshake<Result>(
  address: NbdServerAddress,
  timeoutMs: number,
  use: (greeted: Greeted) => Promise<Result>,
): Promise<Result> {
  const name = nameOf(address);
  const isLocal = "socketPath" in address;
  const socket = isLocal
    ? connect(address.socketPath)
    : connect({ host: address.host, port: address.port, noDelay: true, keepAlive: true });
  const reader = new SocketReader(socket);
  limitSilence(socket, timeoutMs, name);
  let greeted: Greeted = { socket, reader, handshake: new ClientHandshake(socket, reader) };
  try {
    await connected(socket, "connect", name);
    await greeted.handshake.greet();
    if (!isLocal && address.certificates !== undefined) {
      greeted = await withTls(
        greeted,
        { ...address, certificates: address.certificates },
        timeoutMs,
      );
    }
    return await use(greeted);
  } catch (error) {
    greeted.socket.destroy();
    socket.destroy();
    throw error;
  }
}
