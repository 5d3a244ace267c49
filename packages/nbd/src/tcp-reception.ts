/**
 * Accepts TCP clients, requires TLS, and relays their bytes to one end of a socket pair, whose other end a Reception
 * gets.
 *
 * ```
 *   accept ──▶ STARTTLS ──▶ TLS ──▶ relay ──▶ closed
 *      │          └──────────┴─ too slow, a broken rule, no certificate: closed
 *      └─ more than connectionsMax: closed at once
 * ```
 *
 * A relay reads from one side as fast as the other accepts. At the end of the reception it takes no more from
 * clients; they get the replies to their requests, within a time limit.
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

/** Then the kernel probes a silent peer once a second, ten times. */
const KEEP_ALIVE_DELAY_MS = 30_000;
/** How long a client may take to read the rest after the server has closed its side. */
const LINGER_MS = 10_000;
/** Minimum time between two reported refusals, because a refused client can reconnect at once. */
const LOG_INTERVAL_MS = 10_000;

/** Indices of counters. */
export const TcpCount = { CONNECTIONS: 0, REFUSED: 1, LENGTH: 2 } as const;

export interface ListenPlace {
  readonly address: string;
  readonly port: number;
  /** An already listening socket. */
  readonly listenFd?: number;
}

export interface TcpReceptionOptions {
  /** Absent: no TLS. */
  readonly tls?: SecureContextOptions;
  /** Refuses clients without a certificate of the CA. */
  readonly verifiesClients: boolean;
  readonly connectionsMax: number;
  /** Limit of everything before TLS, and of TLS itself. */
  readonly handshakeTimeoutMs: number;
  /** At the end: limit for requests in flight and for clients to read their replies. */
  readonly endTimeoutMs: number;
  /** By TcpCount. */
  readonly counts: Int32Array;
  /** Called with a socket that carries the client's bytes and belongs to the callee. */
  readonly onClient: (fd: number) => void;
  readonly onRefused: (address: string, why: string) => void;
}

function nameOf({ remoteAddress = "", remotePort = 0 }: Socket): string {
  return remoteAddress.includes(":")
    ? `[${remoteAddress}]:${remotePort}`
    : `${remoteAddress}:${remotePort}`;
}

/** The connection's close reports its errors. */
function ignore(): void {}

export class TcpReception {
  readonly #options: TcpReceptionOptions;
  readonly #server: Server;
  readonly #tls: TlsServer | undefined;
  /** With their names. */
  readonly #open = new Map<Socket, string>();
  /** Functions that end relays in order, by the names of their clients. */
  readonly #relays = new Map<string, () => void>();
  /** Client flags from before TLS, by the clients' names. */
  readonly #flags = new Map<string, number>();
  #loggedMs = -LOG_INTERVAL_MS;

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

  /** @returns the port, also if any was requested */
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

  /** Stops accepting and ends all connections, after replies within the time limit. */
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
    if (now - this.#loggedMs < LOG_INTERVAL_MS) return;
    this.#loggedMs = now;
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
      // An untrusted certificate leads here, too.
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
    socket.write(handshake.replies.drain());
    const onData = (bytes: Buffer): void => {
      const isAll = consumeAll(handshake, bytes);
      if (!handshake.replies.isEmpty) socket.write(handshake.replies.drain());
      if (handshake.isClosed) {
        socket.off("data", onData);
        this.#refused(name, "it does not begin with TLS");
        socket.destroySoon();
      } else if (handshake.wantsTls) {
        socket.off("data", onData);
        clearTimeout(late);
        // A man in the middle could have sent it: nothing from before TLS counts after it.
        if (!isAll) {
          this.#refused(name, "it does not wait for TLS");
          socket.destroy();
          return;
        }
        this.#flags.set(name, handshake.flags);
        // A client that closes its side before TLS has left.
        socket.allowHalfOpen = false;
        tls.emit("connection", socket);
      }
    };
    socket.on("data", onData);
    socket.once("end", () => {
      if (!handshake.wantsTls) socket.destroySoon();
    });
  }

  /** @param flags the client's, if it has sent them; undefined: it has not received the greeting */
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
      // With unread bytes the close would be a reset, which discards replies.
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

/** @returns whether all of it is done */
function consumeAll(handshake: Handshake<never>, bytes: Buffer): boolean {
  let at = 0;
  while (at < bytes.length) {
    const consumed = handshake.consume(bytes.subarray(at));
    if (consumed === 0) return false;
    at += consumed;
  }
  return true;
}

function join(client: Socket, server: Socket): void {
  client.pipe(server);
  server.pipe(client);
}

/** The client has received and answered a greeting before TLS. */
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
