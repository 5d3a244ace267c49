import { type BigIntStats, closeSync, lstatSync, rmSync } from "node:fs";
import type { TargetModule, TargetSpec } from "@blksnap/ublk";
import { bounded, listenLocal, ReactorThread } from "@blksnap/uring";
import { NbdError } from "./errors.js";
import { givenSocket } from "./given-socket.js";
import type { ServerCounts } from "./reactor-server-options.js";
import { fullSettings, type ServerSettings } from "./settings.js";
import { nbdUri } from "./uri.js";
import type {
  ServerWorkerMessage,
  ServerWorkerOptions,
  ServerWorkerRequest,
  WorkerContext,
  WorkerExport,
} from "./worker.js";

const ANSWER_TIMEOUT_MS = 10_000;
const EAFNOSUPPORT = 97;

/** A run of blocks with the same flags. */
export interface ExtentRun {
  readonly lengthBytes: number;
  /** Of `base:allocation`: AllocationFlag bits; of `qemu:dirty-bitmap:NAME`: 1 for changed. */
  readonly flags: number;
}

/** One view of the state of an export's blocks. */
export interface ExportContext {
  /** Such as `base:allocation` or `qemu:dirty-bitmap:NAME`. */
  readonly name: string;
  /** Consecutive runs from offset 0 on; flags are 0 after them. */
  readonly extents: Iterable<ExtentRun>;
}

/** How an NbdServer exports a target. */
export interface NbdExport {
  /** The name that clients request; the first export is the default one. */
  readonly name: string;
  readonly target: TargetSpec;
  readonly description?: string;
  /** Default true: clients cannot write, even if the target can. */
  readonly readOnly?: boolean;
  /** Contexts besides `base:allocation`, which reports only data unless it is among them. */
  readonly contexts?: readonly ExportContext[];
}

export interface NbdServerOptions {
  /** Path of the unix socket, which must not exist yet. Give either this or listenFd. */
  readonly socketPath?: string;
  /**
   * A listening unix stream socket, such as a service manager's. It belongs to the server and is closed with it; its
   * file stays. A refused descriptor stays the caller's.
   */
  readonly listenFd?: number;
  /** Mode of the file at socketPath. Default 0600. */
  readonly socketMode?: number;
  readonly exports: readonly NbdExport[];
  readonly settings?: ServerSettings;
  /** Called with defects of targets, and if the reactor ends by itself. */
  readonly onError?: (error: Error) => void;
}

/** @throws NbdError LISTEN_FAILED */
function placeOf(options: NbdServerOptions): { socketPath: string; listenFd?: number } {
  const { socketPath, listenFd } = options;
  if (listenFd === undefined && socketPath !== undefined) return { socketPath };
  if (listenFd === undefined || socketPath !== undefined) {
    throw new NbdError("LISTEN_FAILED", "either socketPath or listenFd is needed");
  }
  const found = givenSocket(listenFd);
  if (found.family === "unix") return { socketPath: found.path, listenFd };
  const what = `descriptor ${listenFd} listens at a TCP port`;
  throw new NbdError("LISTEN_FAILED", `${what}: give it to a TcpListener`, EAFNOSUPPORT);
}

/** Exports targets at a unix socket, on its own thread from start() to stop(). */
export class NbdServer {
  readonly socketPath: string;
  /** Resolves when it serves no more: after stop(), or if its reactor failed. */
  readonly ended: Promise<void>;
  readonly #onError: (error: Error) => void;
  /** Its own socket file, to distinguish it from another server's; none for a descriptor from the caller. */
  readonly #socketFile: BigIntStats | undefined;
  /** Descriptors of the thread, which cannot close them if it dies. */
  readonly #descriptors: Int32Array;
  #thread: ReactorThread | undefined;
  #resolveEnded: () => void = () => undefined;
  #stopping: Promise<void> | undefined;
  #onCounts: ((counts: ServerCounts) => void)[] = [];

  private constructor(options: NbdServerOptions, connectionsMax: number) {
    const place = placeOf(options);
    this.socketPath = place.socketPath;
    this.#onError = options.onError ?? (() => undefined);
    const descriptors = new SharedArrayBuffer((1 + connectionsMax) * 4);
    this.#descriptors = new Int32Array(descriptors).fill(-1);
    this.#descriptors[0] =
      place.listenFd ?? listenLocal(place.socketPath, options.socketMode ?? 0o600);
    this.#socketFile = place.listenFd === undefined ? fileAt(place.socketPath) : undefined;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /**
   * Starts to serve. If it fails, nothing is left behind.
   * @throws NbdError BAD_EXPORT, LISTEN_FAILED, SERVER_FAILED; UringError; those of the targets' modules
   */
  static async start(options: NbdServerOptions): Promise<NbdServer> {
    const { connectionsMax } = fullSettings(options.settings ?? {});
    const exports: WorkerExport[] = [];
    for (const one of options.exports) exports.push(await describeExport(one));
    const server = new NbdServer(options, connectionsMax);
    const descriptors = server.#descriptors;
    try {
      await server.#serve({ descriptors, settings: options.settings ?? {}, exports });
    } catch (error) {
      server.#closeDescriptors();
      server.#removeSocket();
      throw error;
    }
    return server;
  }

  /** The address of an export, for nbdinfo, qemu-img and NbdClient. */
  uri(exportName: string): string {
    return nbdUri(this.socketPath, exportName);
  }

  /** Counts so far. @throws NbdError TIMED_OUT */
  counts(): Promise<ServerCounts> {
    const counts = new Promise<ServerCounts>((resolve) => this.#onCounts.push(resolve));
    this.#post({ type: "count" });
    const late = (): Error => new NbdError("TIMED_OUT", "the server does not answer");
    return bounded(counts, ANSWER_TIMEOUT_MS, late);
  }

  /**
   * Closes the socket and all connections, after replies to their requests, then the targets. A second call returns
   * the same promise.
   * @throws NbdError SERVER_FAILED if a target keeps a request
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    if (this.#thread === undefined) return;
    try {
      this.#removeSocket();
    } finally {
      await this.#stopThread(this.#thread);
    }
  }

  async #stopThread(thread: ReactorThread): Promise<void> {
    try {
      await thread.stop({ type: "stop" } satisfies ServerWorkerRequest);
    } catch (error) {
      throw new NbdError("SERVER_FAILED", `the server at ${this.socketPath} did not end`, 0, error);
    }
  }

  /** Removes its socket file, unless it is gone or another server's. */
  #removeSocket(): void {
    const found = fileAt(this.socketPath);
    if (found === undefined || this.#socketFile === undefined) return;
    const isOwn = found.dev === this.#socketFile.dev && found.ino === this.#socketFile.ino;
    if (isOwn) rmSync(this.socketPath, { force: true });
  }

  /** Only after the thread has ended. */
  #closeDescriptors(): void {
    for (const fd of this.#descriptors) if (fd >= 0) closeSync(fd);
    this.#descriptors.fill(-1);
  }

  #post(request: ServerWorkerRequest): void {
    this.#thread?.post(request);
  }

  #serve(options: ServerWorkerOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      const onMessage = (message: unknown): void => {
        const said = message as ServerWorkerMessage;
        if (said.type === "serving") resolve();
        else if (said.type === "error") this.#onError(new Error(said.message));
        else if (said.type === "counts") this.#onCounts.shift()?.(said.counts);
      };
      const onExit = (error: Error | undefined): void => {
        // Lets clients see the end.
        this.#closeDescriptors();
        if (error !== undefined) {
          const what = `the server at ${this.socketPath}: ${error.message}`;
          const failure = new NbdError("SERVER_FAILED", what, 0, error);
          reject(failure);
          this.#onError(failure);
        }
        this.#resolveEnded();
      };
      const module = new URL("./worker.js", import.meta.url);
      this.#thread = new ReactorThread(module, options, onMessage, onExit);
    });
  }
}

function fileAt(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

async function describeExport(one: NbdExport): Promise<WorkerExport> {
  const { href } = one.target.module;
  const { target } = (await import(href)) as { target: TargetModule };
  return {
    name: one.name,
    description: one.description ?? "",
    readOnly: one.readOnly ?? true,
    params: target.describe(one.target.options),
    module: href,
    options: one.target.options,
    contexts: (one.contexts ?? []).map(packContext),
  };
}

function packContext({ name, extents }: ExportContext): WorkerContext {
  const ends: number[] = [];
  const flags: number[] = [];
  let end = 0;
  for (const run of extents) {
    if (!Number.isSafeInteger(run.lengthBytes) || run.lengthBytes <= 0) {
      throw new NbdError("BAD_EXPORT", `${name}: an extent of ${run.lengthBytes} bytes`);
    }
    end += run.lengthBytes;
    ends.push(end);
    flags.push(run.flags);
  }
  return { name, ends: Float64Array.from(ends), flags: Uint32Array.from(flags) };
}
