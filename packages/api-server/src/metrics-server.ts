/**
 * Metrics on a separate socket: a user of the control socket has root's power over block devices, which monitoring does
 * not need.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { answerFor } from "@blksnap/api";
import { claimSocket } from "./socket.js";

/** A scraper needs one or two; more are a mistake. */
const CONNECTIONS_MAX = 32;
const REQUEST_TIMEOUT_MS = 30_000;
const PATH = "/metrics";

export interface MetricsServerOptions {
  readonly socketPath: string;
  /** Group that may use the socket besides root, if it exists. */
  readonly group: string;
  /** The text for Prometheus; an error that it throws is sent by name. */
  readonly text: () => Promise<string>;
  /** Called with errors that occur while it listens, such as connections that cannot be accepted. */
  readonly onError: (error: Error) => void;
}

export interface MetricsServer {
  close(): Promise<void>;
}

async function answer(
  { method, url }: IncomingMessage,
  response: ServerResponse,
  text: MetricsServerOptions["text"],
): Promise<void> {
  const plain = { "content-type": "text/plain; charset=utf-8" };
  if (url?.split("?")[0] !== PATH) {
    response.writeHead(404, plain).end(`there is ${PATH} only\n`);
  } else if (method !== "GET") {
    response.writeHead(405, { ...plain, allow: "GET" }).end("metrics are read with GET\n");
  } else {
    try {
      const body = await text();
      response.writeHead(200, { "content-type": METRICS_TYPE }).end(body);
    } catch (error) {
      const { httpStatus, error: told } = answerFor(error);
      response.writeHead(httpStatus, plain).end(`${told.name}: ${told.message}\n`);
    }
  }
}

export const METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** @throws ControlError ALREADY_RUNNING, SOCKET_FAILED; an error of listen(2) */
export async function startMetricsServer(options: MetricsServerOptions): Promise<MetricsServer> {
  const { socketPath, group, text, onError } = options;
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    void answer(request, response, text);
  });
  server.maxConnections = CONNECTIONS_MAX;
  const socket = await claimSocket(
    socketPath,
    group,
    (path) =>
      new Promise<void>((done, fail) => {
        server.once("error", fail);
        server.listen(path, () => {
          server.off("error", fail);
          server.on("error", onError);
          done();
        });
      }),
  ).catch((error: unknown) => {
    server.close();
    throw error;
  });
  return {
    close: async () => {
      await socket.release();
      server.closeAllConnections();
      await new Promise<void>((done) => {
        server.close(() => done());
      });
    },
  };
}
