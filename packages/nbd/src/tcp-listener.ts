/**
 * Accepts clients at a TCP address on its own thread, with TLS unless the address is loopback. The client's bytes
 * after TLS come out of a socket, for a Reception.
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
 * Time to read certificates and listen; and to end, in addition to the clients' time. Only hangs exceed it: on a busy
 * machine a thread alone has taken more than ten seconds to start.
 */
const ANSWER_TIMEOUT_MS = 60_000;
/** Heap of JavaScript alone; buffers of relays are outside of it. */
const HEAP_MIB = 64;
const PORT_MAX = 65_535;
const EAFNOSUPPORT = 97;

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

export interface TcpListenerOptions {
  /** An IP address, with a port. Give either this or listenFd. */
  readonly address?: string;
  /** 0: any free port. */
  readonly port?: number;
  /**
   * A listening TCP socket, such as a service manager's. It belongs to the listener and is closed with it. A refused
   * descriptor stays the caller's.
   */
  readonly listenFd?: number;
  /**
   * Folder with ca-cert.pem, server-cert.pem and server-key.pem, read when it is opened; null: without TLS, only at
   * loopback addresses.
   */
  readonly certificates: string | null;
  /** Refuses clients without a certificate that ca-cert.pem has signed. Default true. */
  readonly verifiesClients?: boolean;
  /** Concurrent connections; further ones are closed on arrival. Default 64. */
  readonly connectionsMax?: number;
  /** Time limit until a client begins TLS, and for TLS itself. Default 10 s each. */
  readonly handshakeTimeoutMs?: number;
  /** At the end: time for requests in flight, and for clients to read their replies. Default 2 s. */
  readonly endTimeoutMs?: number;
  /** Called for each client, with a socket that carries its bytes and belongs to the callee. */
  readonly onClient: (fd: number) => void;
  /** Called for refused clients, at a limited rate. */
  readonly onRefused?: (address: string, why: string) => void;
}

/** Whether an address accepts connections from this machine only. */
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
  /** Resolves when it accepts no more: after close(), or with the error of its thread. */
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
      // Descriptors cross threads here: one opens them, another closes them.
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

  /** Number of connections, in any state. */
  get connections(): number {
    return Atomics.load(this.#counts, TcpCount.CONNECTIONS);
  }

  /** Number of refused clients: no TLS, no certificate, too slow, too many. */
  get refused(): number {
    return Atomics.load(this.#counts, TcpCount.REFUSED);
  }

  /**
   * Stops accepting and ends all connections, after replies within endTimeoutMs. A second call returns the same
   * promise.
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
