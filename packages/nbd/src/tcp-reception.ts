/**
 * Clients that come by TCP. It has them begin with TLS, and passes on what they say then: to one end of a pair of
 * sockets, of which a Reception gets the other.
 *
 * ```
 *   accept ──▶ STARTTLS ──▶ TLS ──▶ relay ──▶ closed
 *      │          └──────────┴─ too slow, a broken rule, no certificate: closed
 *      └─ more than connectionsMax: closed at once
 * ```
 *
 * A relay reads from one side as fast as the other takes it. At the end of the reception no more is taken from
 * clients; what they have asked for is answered, for a while.
 */
import { createServer, type Server, Socket } from "node:net";
import {
  createServer as createTlsServer,
  type SecureContextOptions,
  type Server as TlsServer,
} from "node:tls";
import { socketPair } from "@blksnap/uring";
import { type Handshake, handshakeBeforeTls } from "./handshake.js";
import { GREETING_BYTES } from "./protocol.js";
import { tlsReason } from "./tls-files.js";

/** From then on the kernel asks a silent peer once a second, ten times, whether it is there. */
const KEEP_ALIVE_DELAY_MS = 30_000;
/** How long a client may take for the rest when the server has ended its connection. */
const LINGER_MS = 10_000;
/** Between two refusals that are told of: a client that is refused can come again at once. */
const TOLD_INTERVAL_MS = 10_000;

/** Indices of what is counted. */
export const TcpCount = { CONNECTIONS: 0, REFUSED: 1, LENGTH: 2 } as const;

export interface ListenPlace {
  readonly address: string;
  readonly port: number;
  /** Listens there already. */
  readonly listenFd?: number;
}

export interface TcpReceptionOptions {
  /** Absent: without TLS. */
  readonly tls?: SecureContextOptions;
  /** Clients without a certificate of the CA are refused. */
  readonly verifiesClients: boolean;
  readonly connectionsMax: number;
  /** For all before TLS, and for TLS itself. */
  readonly handshakeTimeoutMs: number;
  /** At the end, for requests in flight and for clients that have to read their replies. */
  readonly endTimeoutMs: number;
  /** By TcpCount. */
  readonly counts: Int32Array;
  /** What a client says comes out of this socket, which is the callee's. */
  readonly onClient: (fd: number) => void;
  readonly onRefused: (address: string, why: string) => void;
}

function nameOf({ remoteAddress = "", remotePort = 0 }: Socket): string {
  return remoteAddress.includes(":")
    ? `[${remoteAddress}]:${remotePort}`
    : `${remoteAddress}:${remotePort}`;
}

/** What is wrong with a connection is told by its end. */
function ignore(): void {}

export class TcpReception {
  readonly #options: TcpReceptionOptions;
  readonly #server: Server;
  readonly #tls: TlsServer | undefined;
  /** With their names. */
  readonly #open = new Map<Socket, string>();
  /** What ends relays in order, by the names of their clients. */
  readonly #relays = new Map<string, () => void>();
  /** What clients that are about to begin TLS have said before, by their names. */
  readonly #flags = new Map<string, number>();
  #toldMs = -TOLD_INTERVAL_MS;

  constructor(options: TcpReceptionOptions) {
    this.#options = options;
    this.#server = createServer({
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
    });
    this.#server.maxConnections = options.connectionsMax;
    this.#server.on("drop", (dropped) => {
      const address = `${dropped?.remoteAddress ?? ""}:${dropped?.remotePort ?? 0}`;
      this.#refused(address, `there are ${options.connectionsMax} connections`);
    });
    this.#server.on("connection", (socket) => this.#begin(socket));
    this.#tls = options.tls === undefined ? undefined : this.#makeTls(options.tls);
  }

  /** @returns the port, also where any was asked for */
  listen({ address, port, listenFd }: ListenPlace): Promise<number> {
    const where = listenFd === undefined ? { host: address, port } : { fd: listenFd };
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen({ ...where, exclusive: true }, () => {
        this.#server.off("error", reject);
        this.#server.on("error", (error) => this.#refused("", error.message));
        resolve((this.#server.address() as { port: number }).port);
      });
    });
  }

  /** Takes no more, and ends all connections: requests that have come are answered, for a while. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const [socket, name] of this.#open) {
      const end = this.#relays.get(name) ?? (() => socket.destroy());
      end();
    }
    const late = setTimeout(() => {
      for (const socket of this.#open.keys()) socket.destroy();
    }, this.#options.endTimeoutMs);
    await closed;
    clearTimeout(late);
  }

  #refused(address: string, why: string): void {
    Atomics.add(this.#options.counts, TcpCount.REFUSED, 1);
    const now = performance.now();
    if (now - this.#toldMs < TOLD_INTERVAL_MS) return;
    this.#toldMs = now;
    this.#options.onRefused(address, why);
  }

  #makeTls(context: SecureContextOptions): TlsServer {
    const { verifiesClients, handshakeTimeoutMs } = this.#options;
    const tls = createTlsServer({
      ...context,
      requestCert: verifiesClients,
      rejectUnauthorized: verifiesClients,
      handshakeTimeout: handshakeTimeoutMs,
    });
    tls.on("secureConnection", (socket) => {
      socket.on("error", ignore);
      const flags = this.#flags.get(nameOf(socket));
      socket.allowHalfOpen = true;
      if (flags === undefined) socket.destroy();
      else this.#relay(socket, flags);
    });
    tls.on("tlsClientError", (error, socket) => {
      // A certificate that is not trusted looks so, too.
      const isGone = (error as NodeJS.ErrnoException).code === "ECONNRESET";
      const why = isGone ? "no certificate to be trusted, or it has gone" : tlsReason(error);
      this.#refused(nameOf(socket), why);
      socket.destroy();
    });
    return tls;
  }

  #begin(socket: Socket): void {
    const { counts } = this.#options;
    const name = nameOf(socket);
    this.#open.set(socket, name);
    Atomics.add(counts, TcpCount.CONNECTIONS, 1);
    socket.on("error", ignore);
    socket.once("close", () => {
      this.#open.delete(socket);
      this.#flags.delete(name);
      this.#relays.delete(name);
      Atomics.sub(counts, TcpCount.CONNECTIONS, 1);
    });
    if (this.#tls === undefined) this.#relay(socket, undefined);
    else this.#beforeTls(socket, this.#tls, name);
  }

  #beforeTls(socket: Socket, tls: TlsServer, name: string): void {
    const handshake = handshakeBeforeTls();
    const late = setTimeout(() => {
      this.#refused(name, "it does not begin with TLS in time");
      socket.destroy();
    }, this.#options.handshakeTimeoutMs);
    socket.once("close", () => clearTimeout(late));
    socket.write(handshake.replies.take());
    const onData = (bytes: Buffer): void => {
      const isAll = takeAll(handshake, bytes);
      if (!handshake.replies.isEmpty) socket.write(handshake.replies.take());
      if (handshake.isClosed) {
        socket.off("data", onData);
        this.#refused(name, "it does not begin with TLS");
        socket.destroySoon();
      } else if (handshake.wantsTls) {
        socket.off("data", onData);
        clearTimeout(late);
        // A machine between client and server could have said it: nothing said before TLS counts after it.
        if (!isAll) {
          this.#refused(name, "it does not wait for TLS");
          socket.destroy();
          return;
        }
        this.#flags.set(name, handshake.flags);
        // Who ends its half before TLS is there has left.
        socket.allowHalfOpen = false;
        tls.emit("connection", socket);
      }
    };
    socket.on("data", onData);
    socket.once("end", () => {
      if (!handshake.wantsTls) socket.destroySoon();
    });
  }

  /** @param flags what the client has said already; undefined: nothing, and it has not heard the greeting */
  #relay(client: Socket, flags: number | undefined): void {
    let pair: [number, number];
    try {
      pair = socketPair();
    } catch (error) {
      this.#refused(nameOf(client), (error as Error).message);
      client.destroy();
      return;
    }
    const [own, theirs] = pair;
    const server = new Socket({ fd: own, allowHalfOpen: true, readable: true, writable: true });
    this.#relays.set(nameOf(client), () => {
      client.unpipe(server);
      // With bytes that were not read its end would be a reset, which takes replies with it.
      client.resume();
      server.end();
    });
    this.#options.onClient(theirs);
    server.on("error", ignore);
    client.once("close", () => server.destroy());
    server.once("close", () => client.destroySoon());
    server.once("end", () => {
      const late = setTimeout(() => client.destroy(), LINGER_MS);
      client.once("close", () => clearTimeout(late));
    });
    if (flags === undefined) join(client, server);
    else joinAfterGreeting(client, server, flags);
  }
}

/** @returns whether nothing is left of it */
function takeAll(handshake: Handshake<never>, bytes: Buffer): boolean {
  let at = 0;
  while (at < bytes.length) {
    const taken = handshake.take(bytes.subarray(at));
    if (taken === 0) return false;
    at += taken;
  }
  return true;
}

function join(client: Socket, server: Socket): void {
  client.pipe(server);
  server.pipe(client);
}

/** The client has had a greeting, and has answered it, before TLS. */
function joinAfterGreeting(client: Socket, server: Socket, flags: number): void {
  const onReadable = (): void => {
    const greeting = server.read(GREETING_BYTES) as Buffer | null;
    if (greeting === null) return;
    server.off("readable", onReadable);
    const answer = Buffer.alloc(4);
    answer.writeUInt32BE(flags);
    server.write(answer);
    join(client, server);
  };
  server.on("readable", onReadable);
  server.once("end", () => client.end());
}
