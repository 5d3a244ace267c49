/** The control API: HTTP with JSON on a Unix socket. */
import { setTimeout as sleep } from "node:timers/promises";
import swagger from "@fastify/swagger";
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from "fastify";
import type { Logger } from "pino";
import { answerClientError } from "./client-errors.js";
import { answerFor, ControlError, errorNameOf } from "./control-error.js";
import type { DriverControl } from "./driver-control.js";
import { addEventRoutes } from "./event-routes.js";
import { addInfoRoutes } from "./info-routes.js";
import { parseJsonBody } from "./json-body.js";
import { OpenRequests } from "./open-requests.js";
import { coerceQuery, validationError } from "./request-check.js";
import { RequestCounters } from "./request-counters.js";
import { addSnapshotRoutes } from "./snapshot-routes.js";
import { claimSocket } from "./socket.js";
import { addTrackerRoutes } from "./tracker-routes.js";

const BODY_MAX_BYTES = 1_048_576;
const CONNECTIONS_MAX = 1024;
/** A request must have arrived in full by then; the answer may take as long as it needs. */
const REQUEST_TIMEOUT_MS = 30_000;
/** How long operations may still run once the daemon stops; then their connections are cut. */
const CLOSE_GRACE_MS = 10_000;

export interface ControlServerOptions {
  readonly socketPath: string;
  readonly logger: Logger;
  /** Absent: requests are answered STARTING until `serve` is called. */
  readonly control?: DriverControl;
  /** Version in the OpenAPI description. */
  readonly version?: string;
  /** Group that may use the socket besides root, where it exists. Default: blksnap. */
  readonly group?: string;
}

export interface ControlServer {
  readonly socketPath: string;
  /** Answers requests with this driver from now on. */
  serve(control: DriverControl): void;
  /** Ends waits at once and other operations when they are done, then removes the socket. */
  close(): Promise<void>;
}

function createApp(log: FastifyBaseLogger): FastifyInstance {
  return fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_MAX_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    ajv: {
      customOptions: {
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: false,
        allErrors: false,
      },
    },
    clientErrorHandler: answerClientError,
    frameworkErrors: (error, request, reply) => answerError(error, request, reply),
  });
}

/** The framework's own errors, by the names of the catalogue. */
function named(error: Error): Error {
  const { code, validation, validationContext } = error as FastifyError;
  if (validation !== undefined) return validationError(validation, validationContext ?? "request");
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    return new ControlError("REQUEST_TOO_LARGE", `the body is over ${BODY_MAX_BYTES} bytes`);
  }
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") {
    return new ControlError("MEDIA_TYPE_UNSUPPORTED", "the body is not sent as JSON");
  }
  if (
    typeof code === "string" &&
    code.startsWith("FST_") &&
    (error as FastifyError).statusCode === 400
  ) {
    return new ControlError("REQUEST_INVALID", error.message);
  }
  return error;
}

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const told = error instanceof Error ? named(error) : error;
  const { httpStatus, error: body } = answerFor(told);
  if (errorNameOf(told) === "INTERNAL") {
    request.log.error({ err: told, method: request.method, url: request.url }, "request failed");
  }
  return reply.code(httpStatus).type("application/json").send({ error: body });
}

/** A route without a body in the API takes none, or an empty object. */
function refuseStrayBody(request: FastifyRequest): void {
  if (request.routeOptions.schema?.body !== undefined) return;
  const { body } = request;
  if (body === undefined || body === null) return;
  if (typeof body === "object" && Object.keys(body).length === 0 && !Array.isArray(body)) return;
  throw new ControlError("REQUEST_INVALID", "this request takes no body");
}

function addHooks(app: FastifyInstance, counters: RequestCounters): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (_request, body, done) => {
    try {
      done(null, parseJsonBody(body as string));
    } catch (error) {
      done(error as Error);
    }
  });
  // Answers are made from typed values, so they are not filtered through the schemas again.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply));
  app.setNotFoundHandler((request, reply) => {
    const what = `${request.method} ${request.url.split("?")[0]?.slice(0, 128)}`;
    return answerError(
      new ControlError("ROUTE_NOT_FOUND", `no such request: ${what}`),
      request,
      reply,
    );
  });
  app.addHook("preValidation", async (request) => {
    coerceQuery(request.query, request.routeOptions.schema?.querystring);
    refuseStrayBody(request);
  });
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "(none)";
    counters.add(request.method, route, reply.statusCode);
    const level = request.method === "GET" ? "debug" : "info";
    const { statusCode: status, elapsedTime } = reply;
    request.log[level](
      { method: request.method, url: request.url, status, ms: Math.round(elapsedTime) },
      "request",
    );
  });
}

/**
 * Starts the control API at `socketPath`. Throws a ControlError: ALREADY_RUNNING where another daemon
 * answers there, SOCKET_FAILED where the socket can't be made.
 */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const { socketPath, group = "blksnap", version = "0.0.0" } = options;
  let control = options.control;
  const log: FastifyBaseLogger = options.logger;
  const open = new OpenRequests();
  const counters = new RequestCounters();
  const app = createApp(log);
  addHooks(app, counters);
  await app.register(swagger, {
    openapi: { openapi: "3.1.0", info: { title: "blksnapd control API", version } },
  });
  function driver(): DriverControl {
    if (open.closing) throw new ControlError("SHUTTING_DOWN", "the daemon is stopping");
    if (control === undefined) throw new ControlError("STARTING", "the daemon is starting");
    return control;
  }
  const context = { app, driver, open, counters, log };
  addInfoRoutes(context);
  addTrackerRoutes(context);
  addSnapshotRoutes(context);
  addEventRoutes(context);
  app.server.maxConnections = CONNECTIONS_MAX;
  const socket = await claimSocket(socketPath, group, (path) =>
    // The path is a passing one: the log names the socket's real place.
    app.listen({ path, listenTextResolver: () => `control API listens at ${socketPath}` }),
  ).catch(async (error: unknown) => {
    await app.close();
    if (error instanceof ControlError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw new ControlError("SOCKET_FAILED", `can't listen at ${socketPath}: ${message}`, {
      cause: error,
      ...(code === undefined ? {} : { errnoName: code }),
    });
  });
  return {
    socketPath,
    serve: (driverControl) => {
      control = driverControl;
    },
    close: async () => {
      await socket.release();
      open.close();
      const grace = new AbortController();
      const cut = sleep(CLOSE_GRACE_MS, undefined, { signal: grace.signal, ref: false }).then(
        () => app.server.closeAllConnections(),
        () => undefined,
      );
      await app.close();
      grace.abort();
      await cut;
    },
  };
}
