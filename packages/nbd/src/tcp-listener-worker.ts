/** The thread of one TcpListener. */
import { parentPort, workerData } from "node:worker_threads";
import { assert, NbdError } from "./errors.js";
import { type ListenPlace, TcpReception } from "./tcp-reception.js";
import { serverCertificates } from "./tls-files.js";

export interface TcpWorkerOptions extends ListenPlace {
  /** Folder of certificates; null: without TLS. */
  readonly certificates: string | null;
  readonly verifiesClients: boolean;
  readonly connectionsMax: number;
  readonly handshakeTimeoutMs: number;
  readonly endTimeoutMs: number;
  /** Shared; by TcpCount. */
  readonly counts: Int32Array;
}

export type TcpWorkerRequest = { readonly type: "close" };

/** Messages of the worker. */
export type TcpWorkerMessage =
  | { readonly type: "listening"; readonly port: number }
  | {
      readonly type: "failed";
      readonly code: "CERTIFICATES_UNUSABLE" | "LISTEN_FAILED";
      readonly message: string;
      readonly errno: number;
    }
  | { readonly type: "client"; readonly fd: number }
  | { readonly type: "refused"; readonly address: string; readonly why: string };

assert(parentPort !== null, "this module is for a worker thread");
const port = parentPort;
const options = workerData as TcpWorkerOptions;

function say(message: TcpWorkerMessage): void {
  port.postMessage(message);
}

function sayFailure(error: unknown): void {
  const { message, errno = 0 } = error as NodeJS.ErrnoException;
  const isOfCertificates = error instanceof NbdError;
  const code = isOfCertificates ? "CERTIFICATES_UNUSABLE" : "LISTEN_FAILED";
  say({ type: "failed", code, message, errno });
  port.close();
}

async function listen(): Promise<void> {
  const { certificates, verifiesClients, connectionsMax, handshakeTimeoutMs, counts } = options;
  const { endTimeoutMs } = options;
  const tls =
    certificates === null ? {} : { tls: serverCertificates(certificates, verifiesClients) };
  const reception = new TcpReception({
    ...{ ...tls, verifiesClients, connectionsMax, handshakeTimeoutMs, endTimeoutMs, counts },
    onClient: (fd) => say({ type: "client", fd }),
    onRefused: (address, why) => say({ type: "refused", address, why }),
  });
  say({ type: "listening", port: await reception.listen(options) });
  port.once("message", () => {
    void reception.close().then(() => port.close());
  });
}

listen().catch(sayFailure);
