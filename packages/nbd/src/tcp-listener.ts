/**
 * A TCP address at which clients are received on a thread of its own, with TLS unless it is an address of loopback.
 * What a client says when TLS is there comes out of a socket, for a Reception.
 */
import { BlockList, isIP } from "node:net";
import { Worker } from "node:worker_threads";
import { bounded } from "@blksnap/uring";
import { NbdError } from "./errors.js";
import { givenSocket } from "./given-socket.js";
import type {
  TcpWorkerMessage,
  TcpWorkerOptions,
  TcpWorkerRequest,
} from "./tcp-listener-worker.js";
import { type ListenPlace, TcpCount } from "./tcp-reception.js";

/**
 * To read certificates and listen; to end, besides what clients may take for it. It ends what hangs: where many programs
 * share a processor, a thread alone has taken more than ten seconds to begin.
 */
const ANSWER_TIMEOUT_MS = 60_000;
/** Of JavaScript alone; what relays have in hand lies beside it. */
const HEAP_MIB = 64;
const PORT_MAX = 65_535;
const EAFNOSUPPORT = 97;

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

export interface TcpListenerOptions {
  /** An IP address, with a port. Either this or listenFd is given. */
  readonly address?: string;
  /** 0: any that is free. */
  readonly port?: number;
  /**
   * A TCP socket that listens, such as a service manager has made: the listener's from then on, and closed with it. A
   * descriptor that is refused stays the caller's.
   */
  readonly listenFd?: number;
  /**
   * Folder with ca-cert.pem, server-cert.pem and server-key.pem, read when it is opened; null: without TLS, which only
   * addresses of loopback may be.
   */
  readonly certificates: string | null;
  /** Clients without a certificate that ca-cert.pem has signed are refused. Default true. */
  readonly verifiesClients?: boolean;
  /** At a time; more are closed as they come. Default 64. */
  readonly connectionsMax?: number;
  /** How long a client may take until it begins TLS, and for TLS. Default 10 s each. */
  readonly handshakeTimeoutMs?: number;
  /** At the end: how long requests in flight, and clients that have to read their replies, may take. Default 2 s. */
  readonly endTimeoutMs?: number;
  /** A client is there: what it says comes out of this socket, which is the callee's. */
  readonly onClient: (fd: number) => void;
  /** Told of clients that were refused, now and then. */
  readonly onRefused?: (address: string, why: string) => void;
}

/** Whether a connection from an address comes from this machine alone. */
export function isLoopback(address: string): boolean {
  const family = isIP(address);
  return family !== 0 && loopback.check(address, family === 4 ? "ipv4" : "ipv6");
}

/** @throws NbdError LISTEN_FAILED */
function placeOf({ address, port, listenFd }: TcpListenerOptions): ListenPlace {
  if (listenFd === undefined) return { address: address ?? "", port: port ?? -1 };
  if (address !== undefined || port !== undefined) {
    throw new NbdError("LISTEN_FAILED", "either an address with a port or listenFd is needed");
  }
  const found = givenSocket(listenFd);
  if (found.family === "tcp") return { address: found.address, port: found.port, listenFd };
  const what = `descriptor ${listenFd} listens at the unix socket ${found.path}`;
  throw new NbdError("LISTEN_FAILED", `${what}: give it to an NbdServer`, EAFNOSUPPORT);
}

/** @throws NbdError LISTEN_FAILED, NOT_SECURE */
function assertUsable({ address, port }: ListenPlace, certificates: string | null): void {
  const isPort = Number.isInteger(port) && port >= 0 && port <= PORT_MAX;
  if (isIP(address) === 0 || !isPort) {
    throw new NbdError(
      "LISTEN_FAILED",
      `"${address}" with port ${port} is not an IP address and port`,
    );
  }
  if (certificates !== null || isLoopback(address)) return;
  throw new NbdError("NOT_SECURE", `${address} can be reached by others: it needs TLS`);
}

export class TcpListener {
  readonly address: string;
  readonly port: number;
  /** Ends when it takes no more clients: after close(), or when its thread failed, with what it did so by. */
  readonly ended: Promise<Error | undefined>;
  readonly #worker: Worker;
  readonly #counts: Int32Array;
  readonly #endTimeoutMs: number;
  #closing: Promise<void> | undefined;

  private constructor(
    worker: Worker,
    address: string,
    port: number,
    { counts, endTimeoutMs }: TcpWorkerOptions,
    ended: Promise<Error | undefined>,
  ) {
    this.#endTimeoutMs = endTimeoutMs;
    this.#worker = worker;
    this.address = address;
    this.port = port;
    this.#counts = counts;
    this.ended = ended;
  }

  /** @throws NbdError NOT_SECURE, CERTIFICATES_UNUSABLE, LISTEN_FAILED, TIMED_OUT */
  static async open(options: TcpListenerOptions): Promise<TcpListener> {
    const { certificates, onClient, onRefused } = options;
    const place = placeOf(options);
    assertUsable(place, certificates);
    const counts = new Int32Array(new SharedArrayBuffer(4 * TcpCount.LENGTH));
    const workerData: TcpWorkerOptions = {
      ...{ ...place, certificates, counts },
      verifiesClients: options.verifiesClients ?? true,
      connectionsMax: options.connectionsMax ?? 64,
      handshakeTimeoutMs: options.handshakeTimeoutMs ?? 10_000,
      endTimeoutMs: options.endTimeoutMs ?? 2_000,
    };
    const worker = new Worker(new URL("./tcp-listener-worker.js", import.meta.url), {
      workerData,
      // Descriptors cross threads here: opened by one, closed by another.
      trackUnmanagedFds: false,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    });
    const ended = endOf(worker);
    const listening = new Promise<number>((resolve, reject) => {
      worker.on("message", (message: TcpWorkerMessage) => {
        if (message.type === "client") onClient(message.fd);
        else if (message.type === "refused") onRefused?.(message.address, message.why);
        else if (message.type === "listening") resolve(message.port);
        else reject(new NbdError(message.code, message.message, message.errno));
      });
      void ended.then((error) => {
        reject(new NbdError("LISTEN_FAILED", "its thread has ended", 0, error));
      });
    });
    try {
      const found = await bounded(listening, ANSWER_TIMEOUT_MS, late);
      return new TcpListener(worker, place.address, found, workerData, ended);
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  /** Those that there are, in whatever state. */
  get connections(): number {
    return Atomics.load(this.#counts, TcpCount.CONNECTIONS);
  }

  /** How many were refused so far: no TLS, no certificate, too slow, too many. */
  get refused(): number {
    return Atomics.load(this.#counts, TcpCount.REFUSED);
  }

  /**
   * Takes no more, and ends all connections: requests that have come are answered, for endTimeoutMs. Calling it again
   * answers the same promise.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#worker.postMessage({ type: "close" } satisfies TcpWorkerRequest);
    try {
      await bounded(this.ended, this.#endTimeoutMs + ANSWER_TIMEOUT_MS, late);
    } catch {
      await this.#worker.terminate();
    }
  }
}

function late(): NbdError {
  return new NbdError("TIMED_OUT", "the thread of a TCP listener does not answer");
}

function endOf(worker: Worker): Promise<Error | undefined> {
  let failure: Error | undefined;
  worker.on("error", (error) => {
    failure = error as Error;
  });
  return new Promise((resolve) => worker.once("exit", () => resolve(failure)));
}
