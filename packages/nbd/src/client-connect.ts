/** Connects a client to a server, at any kind of address, with TLS if the address requires it. */
import { connect, isIP, type NetConnectOpts, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { ClientHandshake } from "./client-handshake.js";
import { DirectReader } from "./direct-reader.js";
import { NbdError } from "./errors.js";
import { limitSilence } from "./silence.js";
import { type ByteReader, SocketReader } from "./socket-reader.js";
import { clientCertificates, tlsReason } from "./tls-files.js";
import type { NbdServerAddress, TcpServer } from "./uri.js";

/** A connection that is ready for options. */
export interface Greeted {
  readonly socket: Socket;
  readonly reader: ByteReader;
  readonly handshake: ClientHandshake;
}

export function silent(who: string): NbdError {
  return new NbdError("TIMED_OUT", `${who} says nothing`);
}

function nameOf(address: NbdServerAddress): string {
  return "socketPath" in address ? address.socketPath : `${address.host}:${address.port}`;
}

/** Waits for the connection, with a limit of silence. */
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

/** In the handshake the server always owes a reply, or the connection. */
function limitHandshake(socket: Socket, timeoutMs: number, name: string): void {
  limitSilence(
    socket,
    timeoutMs,
    () => true,
    () => socket.destroy(silent(name)),
  );
}

/** @throws NbdError CERTIFICATES_UNUSABLE, CONNECT_FAILED, HANDSHAKE_REFUSED, TIMED_OUT */
async function withTls(
  { socket, reader, handshake }: Greeted & { readonly reader: SocketReader },
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
  limitHandshake(secure, timeoutMs, nameOf(server));
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
 * Connects, and lets `use` do the handshake; destroys the socket if that fails.
 * @param timeoutMs how long the server may be silent
 */
export async function withHandshake<Result>(
  address: NbdServerAddress,
  timeoutMs: number,
  use: (greeted: Greeted) => Promise<Result>,
): Promise<Result> {
  const name = nameOf(address);
  const certificates = "socketPath" in address ? undefined : address.certificates;
  const where: NetConnectOpts =
    "socketPath" in address
      ? { path: address.socketPath }
      : { host: address.host, port: address.port, noDelay: true, keepAlive: true };
  if (certificates === undefined) {
    const { socket, reader } = DirectReader.connect(where);
    return await greeting(socket, reader, timeoutMs, name, use);
  }
  const socket = connect(where);
  const reader = new SocketReader(socket);
  const server = { ...(address as TcpServer), certificates };
  return await greeting(socket, reader, timeoutMs, name, async (greeted) => {
    const secured = await withTls({ ...greeted, reader }, server, timeoutMs);
    try {
      return await use(secured);
    } catch (error) {
      secured.socket.destroy();
      throw error;
    }
  });
}

async function greeting<Result>(
  socket: Socket,
  reader: ByteReader,
  timeoutMs: number,
  name: string,
  use: (greeted: Greeted) => Promise<Result>,
): Promise<Result> {
  limitHandshake(socket, timeoutMs, name);
  const handshake = new ClientHandshake(socket, reader);
  try {
    await connected(socket, "connect", name);
    await handshake.greet();
    return await use({ socket, reader, handshake });
  } catch (error) {
    socket.destroy();
    throw error;
  }
}
