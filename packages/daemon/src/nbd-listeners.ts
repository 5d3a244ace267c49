/**
 * The TCP addresses that accept NBD clients, besides nbd.sock. An address that a command opens ends with this daemon.
 * Configured addresses are opened by each daemon, which retries as long as it cannot. At the address of a socket of the
 * service manager, that socket is used: it may have an address that this process may not listen at.
 *
 * ```
 *   TCP ──▶ TcpListener: a thread with TLS ──▶ pair of sockets ──▶ Reception: the handshake ──▶ reactor
 * ```
 */
import { closeSync, fstatSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ControlError,
  type NbdControl,
  type NbdListener,
  type NbdListenerOpenRequest,
  type NbdListenerQuery,
  type TcpAddress,
  tcpAddressText,
} from "@blksnap/api";
import type { Driver, DriverExport } from "@blksnap/driver";
import { errnoName } from "@blksnap/errors";
import { isLoopback, NbdError, Reception, TcpListener } from "@blksnap/nbd";
import { duplicateFd } from "@blksnap/uring";
import type { Logger } from "pino";
import type { PassedTcpSocket } from "./passed-sockets.js";

/** Another daemon may still be leaving the address. */
const RETRY_MS = 2_000;
/** Each has a thread. */
const LISTENERS_MAX = 8;

interface Open {
  readonly tcp: TcpListener;
  readonly reception: Reception<DriverExport>;
}

/** One address, open or not. */
interface Entry {
  readonly request: NbdListenerOpenRequest;
  readonly configured: boolean;
  open: Open | undefined;
  /** Why it is not open. */
  why: string | null;
  failure?: ControlError;
}

/** @throws ControlError NBD_NOT_SECURE */
function assertSecure(request: NbdListenerOpenRequest): void {
  const { address, certificates, any_client = false, insecure = false } = request;
  const where = tcpAddressText(request);
  if (insecure && (certificates !== undefined || any_client)) {
    throw new ControlError("NBD_NOT_SECURE", `${where}: an insecure address takes no certificates`);
  }
  if (certificates !== undefined) return;
  if (!insecure) throw new ControlError("NBD_NOT_SECURE", `${where}: no certificates were given`);
  if (isLoopback(address)) return;
  throw new ControlError("NBD_NOT_SECURE", `${where}: that address is not loopback`);
}

function notOpened(request: NbdListenerOpenRequest, why: string, errno: string): ControlError {
  const what = `NBD clients cannot be accepted at ${tcpAddressText(request)}: ${why}`;
  return new ControlError("NBD_LISTEN_FAILED", what, { errnoName: errno });
}

function named(request: NbdListenerOpenRequest, error: unknown): ControlError {
  if (error instanceof ControlError) return error;
  if (!(error instanceof NbdError)) return notOpened(request, (error as Error).message, "EIO");
  const { code, message, errno } = error;
  if (code === "CERTIFICATES_UNUSABLE") {
    return new ControlError("NBD_CERTIFICATES_UNUSABLE", message, { cause: error });
  }
  return notOpened(request, message, errno === 0 ? "EIO" : errnoName(errno));
}

function listenerOf({ request, configured, open, why }: Entry): NbdListener {
  const { address, port, certificates, any_client = false, writable = false } = request;
  const tls = certificates !== undefined;
  return {
    ...{ address, port, tls, writable, configured, why },
    verifies_clients: tls && !any_client,
    open: open !== undefined,
    connections: open?.tcp.connections ?? 0,
    refused: open?.tcp.refused ?? 0,
  };
}

/** A listener that could not be opened may have closed its descriptor, whose number then may be another file's. */
function closeIfSame(fd: number, passedFd: number): void {
  try {
    if (fstatSync(fd).ino === fstatSync(passedFd).ino) closeSync(fd);
  } catch {
    // It is closed.
  }
}

async function end(open: Open | undefined): Promise<void> {
  await open?.tcp.close();
  await open?.reception.close();
}

export class NbdListeners implements NbdControl {
  readonly #exports: Driver["nbd"];
  readonly #logger: Logger;
  readonly #passed: readonly PassedTcpSocket[];
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new AbortController();
  #retrying: Promise<void> = Promise.resolve();

  /** @param passed sockets of the service manager, which stay open */
  constructor(exports: Driver["nbd"], logger: Logger, passed: readonly PassedTcpSocket[]) {
    this.#exports = exports;
    this.#logger = logger;
    this.#passed = passed;
    exports.listeners = () => this.list();
  }

  /** Opens the configured address, now or by retries; the daemon serves without it. */
  async configure(request: NbdListenerOpenRequest | undefined): Promise<void> {
    this.#warnOfOthers(request);
    if (request === undefined) return;
    const entry: Entry = { request, configured: true, open: undefined, why: null };
    this.#entries.set(tcpAddressText(request), entry);
    if (await this.#tryOpen(entry)) return;
    this.#logger.warn({ why: entry.why }, "NBD clients are not accepted by TCP yet");
    this.#retrying = this.#retry(entry);
  }

  list(): NbdListener[] {
    return [...this.#entries.values()].map(listenerOf);
  }

  async open(request: NbdListenerOpenRequest): Promise<NbdListener> {
    if (this.#closing.signal.aborted) {
      throw new ControlError("SHUTTING_DOWN", "the daemon is stopping");
    }
    assertSecure(request);
    const name = tcpAddressText(request);
    if (this.#entries.has(name)) {
      throw notOpened(request, "that address is already open, or is being opened", "EADDRINUSE");
    }
    if (this.#entries.size >= LISTENERS_MAX) {
      throw notOpened(request, `there are ${LISTENERS_MAX} addresses`, "EMFILE");
    }
    const entry: Entry = { request, configured: false, open: undefined, why: null };
    this.#entries.set(name, entry);
    if (await this.#tryOpen(entry)) return listenerOf(entry);
    this.#entries.delete(name);
    throw entry.failure ?? notOpened(request, "it was closed at once", "ECANCELED");
  }

  async close(query: NbdListenerQuery): Promise<NbdListener> {
    const name = tcpAddressText(query);
    const entry = this.#entries.get(name);
    if (entry === undefined) {
      throw new ControlError("NBD_LISTENER_NOT_FOUND", `no NBD clients are accepted at ${name}`);
    }
    const was = listenerOf(entry);
    this.#entries.delete(name);
    await end(entry.open);
    this.#logger.info({ address: name }, "NBD clients are no longer accepted there");
    return was;
  }

  /** Closes all addresses. */
  async end(): Promise<void> {
    this.#closing.abort();
    const open = [...this.#entries.values()].map((entry) => entry.open);
    this.#entries.clear();
    await Promise.all([this.#retrying, ...open.map(end)]);
  }

  /** @returns whether it is open; if not, the entry has the reason */
  async #tryOpen(entry: Entry): Promise<boolean> {
    const { request } = entry;
    const name = tcpAddressText(request);
    try {
      assertSecure(request);
      const open = await this.#open(entry);
      if (this.#entries.get(name) !== entry) {
        await end(open);
        return false;
      }
      entry.open = open;
    } catch (error) {
      entry.failure = named(request, error);
      entry.why = entry.failure.message;
      return false;
    }
    entry.why = null;
    const { connections: _, refused: __, ...how } = listenerOf(entry);
    this.#logger.info(how, "NBD clients are accepted by TCP");
    return true;
  }

  /** Clients wait at a socket on which nothing accepts. */
  #warnOfOthers(configured: NbdListenerOpenRequest | undefined): void {
    for (const socket of this.#passed) {
      const address = tcpAddressText(socket);
      if (configured !== undefined && tcpAddressText(configured) === address) continue;
      const text =
        'NBD clients wait at a socket of the service manager until "blksnapctl nbd open" opens its address, ' +
        "because nbd-listen has another one, or none";
      this.#logger.warn({ address }, text);
    }
  }

  #passedAt(address: TcpAddress): PassedTcpSocket | undefined {
    const name = tcpAddressText(address);
    return this.#passed.find((socket) => tcpAddressText(socket) === name);
  }

  async #open(entry: Entry): Promise<Open> {
    const { address, port, certificates = null, any_client = false, writable } = entry.request;
    const passed = this.#passedAt(entry.request);
    const listenFd = passed === undefined ? undefined : duplicateFd(passed.fd);
    const exports = this.#exports;
    const reception = new Reception({
      exports: writable === true ? exports : exports.readOnly,
      serve: (fd, agreement, received) => exports.serve(fd, agreement, received),
      onError: (error) => this.#logger.warn({ err: error }, "NBD by TCP"),
    });
    try {
      const tcp = await TcpListener.open({
        ...(listenFd === undefined ? { address, port } : { listenFd }),
        certificates,
        verifiesClients: !any_client,
        onClient: (fd) => reception.handle(fd),
        onRefused: (client, why) =>
          this.#logger.warn({ client, why }, "NBD clients are refused; this is one of them"),
      });
      void tcp.ended.then((error) => this.#onEnd(entry, tcp, error));
      return { tcp, reception };
    } catch (error) {
      if (passed !== undefined) closeIfSame(listenFd as number, passed.fd);
      await reception.close();
      throw error;
    }
  }

  /** Its thread has ended; the daemon continues. */
  #onEnd(entry: Entry, tcp: TcpListener, error: Error | undefined): void {
    const name = tcpAddressText(entry.request);
    const isMeant = this.#entries.get(name) !== entry || entry.open?.tcp !== tcp;
    if (isMeant) return;
    this.#logger.error({ err: error, address: name }, "NBD clients are no longer accepted there");
    void entry.open?.reception.close();
    entry.open = undefined;
    entry.why = error?.message ?? "its thread has ended";
    if (entry.configured) this.#retrying = this.#retry(entry);
    else this.#entries.delete(name);
  }

  async #retry(entry: Entry): Promise<void> {
    const { signal } = this.#closing;
    const name = tcpAddressText(entry.request);
    for (;;) {
      await sleep(RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted || this.#entries.get(name) !== entry) return;
      if (await this.#tryOpen(entry)) return;
    }
  }
}
