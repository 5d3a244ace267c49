/** The control API: HTTP with JSON on a Unix socket. */
import { setTimeout as sleep } from "node:timers/promises";
import type { DaemonControl, DriverControl, EventLogControl, NbdControl } from "@blksnap/api";
import { answerFor, ControlError, errorNameOf } from "@blksnap/api";
import fastify, {
  type FastifyBaseLogger,
  type FastifyError,
  type FastifyInstance,
  type FastifyListenOptions,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  LogController,
} from "fastify";
import type { Logger } from "pino";
import { answerClientError, answerExpectation } from "./client-errors.js";
import { addDaemonEventRoutes } from "./daemon-event-routes.js";
import { addDaemonRoutes } from "./daemon-routes.js";
import { addDescriptionRoute } from "./description.js";
import { addEventRoutes } from "./event-routes.js";
import { addInfoRoutes, metricsText } from "./info-routes.js";
import { parseJsonBody } from "./json-body.js";
import { type MetricsServer, startMetricsServer } from "./metrics-server.js";
import { addNbdRoutes } from "./nbd-routes.js";
import { OpenRequests } from "./open-requests.js";
import { coerceQuery, validationError } from "./request-check.js";
import { RequestCounters } from "./request-counters.js";
import type { RouteContext } from "./route-context.js";
import { RouteTable } from "./route-table.js";
import { addSnapshotRoutes } from "./snapshot-routes.js";
import { type ClaimedSocket, claimSocket, SOCKET_GROUP } from "./socket.js";
import { addTrackerRoutes } from "./tracker-routes.js";
import { prepareValidation, validatorOf } from "./validation.js";

const BODY_MAX_BYTES = 1_048_576;
const CONNECTIONS_MAX = 1024;
/** A request must have arrived in full by then; the response may take longer. */
const REQUEST_TIMEOUT_DEFAULT_MS = 30_000;
/** The framework's messages repeat the request, which can be long. */
const MESSAGE_MAX = 128;
/** Enough for any device path, too little for a client that wants to fill the log. */
const LOGGED_URL_MAX = 4096;
/** How often connections are checked for slow requests. */
const TIMEOUT_CHECKS_PER_REQUEST = 4;
/** Grace for operations that run when the daemon stops; then their connections are closed. */
const CLOSE_GRACE_MS = 10_000;

export interface ControlServerOptions {
  readonly socketPath: string;
  /**
   * Descriptor of a socket that another program, such as a service manager, has created there and that outlives this
   * server; absent: the server creates its own.
   */
  readonly listenFd?: number;
  readonly logger: Logger;
  /** Absent: requests are answered STARTING until `serve` is called. */
  readonly control?: DriverControl;
  /** Absent if the server belongs to another program: it has no routes to end it. */
  readonly daemon?: DaemonControl;
  /** Accepts NBD clients by TCP. Absent if the server belongs to another program. */
  readonly nbd?: NbdControl;
  /** The log of the whole daemon. Absent if the server belongs to another program. */
  readonly events?: EventLogControl;
  /** Version in the OpenAPI description. */
  readonly version?: string;
  /** Time limit for a request to arrive, from connecting on. Default: 30 s. */
  readonly requestTimeoutMs?: number;
  /** Group that may use the socket besides root, if it exists. Default: blksnap. */
  readonly group?: string;
  /** Extra socket that serves only metrics; absent: only the control socket serves them. */
  readonly metricsSocketPath?: string;
  /** Group that may use that socket besides root, if it exists. Default: blksnap-metrics. */
  readonly metricsGroup?: string;
}

export interface ControlServer {
  readonly socketPath: string;
  /** Serves requests with this driver from now on. */
  serve(control: DriverControl): void;
  /**
   * Removes the socket, ends waits at once, and lets other operations finish; after the grace (10 s by default)
   * closes their connections.
   */
  close(graceMs?: number): Promise<void>;
}

type CompilersFactory = NonNullable<
  NonNullable<FastifyServerOptions["schemaController"]>["compilersFactory"]
>;

/** The framework declares the type of its own compiler, which takes the route as one object. */
const buildValidator = (() =>
  ({ schema }: { schema: object }) =>
    validatorOf(schema)) as unknown as NonNullable<CompilersFactory["buildValidator"]>;

function createApp(log: FastifyBaseLogger, requestTimeoutMs: number): FastifyInstance {
  return fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_MAX_BYTES,
    requestTimeout: requestTimeoutMs,
    http: {
      headersTimeout: requestTimeoutMs,
      connectionsCheckingInterval: requestTimeoutMs / TIMEOUT_CHECKS_PER_REQUEST,
      // A Unix socket has only one host.
      requireHostHeader: false,
    },
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    // Requests during the close get SHUTTING_DOWN, which clients know.
    return503OnClosing: false,
    schemaController: {
      compilersFactory: {
        buildValidator,
        // Responses are built from typed values: no need to filter them through the schemas.
        buildSerializer: () => () => JSON.stringify,
      },
    },
    clientErrorHandler: answerClientError,
    frameworkErrors: (error, request, reply) => answerError(error, request, reply),
  });
}

/** The framework's errors, by the names of the catalogue. */
function named(error: Error): Error {
  const { code, validation, validationContext } = error as FastifyError;
  if (validation !== undefined) return validationError(validation, validationContext ?? "request");
  if (code === "FST_ERR_CTP_BODY_TOO_LARGE") {
    return new ControlError("REQUEST_TOO_LARGE", `the body is over ${BODY_MAX_BYTES} bytes`);
  }
  if (code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") {
    return new ControlError("MEDIA_TYPE_UNSUPPORTED", "the body is not sent as JSON");
  }
  const { statusCode = 500, message } = error as FastifyError;
  if (typeof code === "string" && code.startsWith("FST_") && statusCode < 500) {
    return new ControlError("REQUEST_INVALID", message.slice(0, MESSAGE_MAX));
  }
  return error;
}

function reportableError(error: unknown, { raw }: FastifyRequest): unknown {
  // No client reads it any more, but the daemon is not at fault.
  if (raw.destroyed && !raw.complete) {
    return new ControlError("REQUEST_INVALID", "the connection ended before the request did");
  }
  return error instanceof Error ? named(error) : error;
}

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const reported = reportableError(error, request);
  const { httpStatus, error: body } = answerFor(reported);
  if (errorNameOf(reported) === "INTERNAL") {
    const { method, url } = request;
    request.log.error(
      { err: reported, method, url: url.slice(0, LOGGED_URL_MAX) },
      "request failed",
    );
  }
  return reply.code(httpStatus).type("application/json").send({ error: body });
}

/** A route without a body or query in the API accepts none, or an empty object. */
function refuseStrays(request: FastifyRequest): void {
  // An unknown route is reported first.
  if (request.is404) return;
  const { schema } = request.routeOptions;
  if (schema?.querystring === undefined && Object.keys(request.query as object).length > 0) {
    throw new ControlError("REQUEST_INVALID", "this request takes no query");
  }
  if (schema?.body !== undefined) return;
  const { body, headers } = request;
  // The framework does not read the body of a GET at all.
  const isUnread = request.method === "GET" && Number(headers["content-length"] ?? 0) > 0;
  const isEmpty = body === undefined || body === null || isEmptyObject(body);
  if (isUnread || headers["transfer-encoding"] !== undefined || !isEmpty) {
    throw new ControlError("REQUEST_INVALID", "this request takes no body");
  }
}

function isEmptyObject(value: unknown): boolean {
  return (
    typeof value === "object" && !Array.isArray(value) && Object.keys(value as object).length === 0
  );
}

/** An unknown path, or a method that the path does not allow: RFC 9110 requires the header Allow. */
function answerUnknown(
  routes: RouteTable,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const path = request.url.split("?")[0] ?? "";
  const what = `${request.method} ${path.slice(0, MESSAGE_MAX)}`;
  const methods = routes.methodsAt(path);
  if (methods.length === 0) {
    const unknown = new ControlError("ROUTE_NOT_FOUND", `no such request: ${what}`);
    return answerError(unknown, request, reply);
  }
  const allowed = methods.join(", ");
  const why = `no such request: ${what}; the path supports ${allowed}`;
  return answerError(
    new ControlError("METHOD_NOT_ALLOWED", why),
    request,
    reply.header("allow", allowed),
  );
}

function addHooks(
  app: FastifyInstance,
  counters: RequestCounters,
  routes: RouteTable,
  events: EventLogControl | undefined,
): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (_request, body, done) => {
    try {
      done(null, parseJsonBody(body as string));
    } catch (error) {
      done(error as Error);
    }
  });
  app.setErrorHandler((error, request, reply) => answerError(error, request, reply));
  app.setNotFoundHandler((request, reply) => answerUnknown(routes, request, reply));
  app.addHook("preValidation", async (request) => {
    const { schema } = request.routeOptions;
    const { body, querystring, params, headers } = schema ?? {};
    if (body ?? querystring ?? params ?? headers) await prepareValidation();
    coerceQuery(request.query, schema?.querystring);
    refuseStrays(request);
  });
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "(none)";
    counters.add(request.method, route, reply.statusCode);
    const level = request.method === "GET" ? "debug" : "info";
    if (request.method !== "GET") events?.poll();
    const { statusCode: status, elapsedTime } = reply;
    const url = request.url.slice(0, LOGGED_URL_MAX);
    request.log[level](
      { method: request.method, url, status, ms: Math.round(elapsedTime) },
      "request",
    );
  });
}

function addRoutes(context: RouteContext): void {
  addInfoRoutes(context);
  addTrackerRoutes(context);
  addSnapshotRoutes(context);
  addEventRoutes(context);
  addDaemonEventRoutes(context);
  addNbdRoutes(context);
  addDaemonRoutes(context);
}

/** Nothing depends on metrics: if their socket cannot be created, the log says so. */
async function metricsServer(
  options: ControlServerOptions,
  text: () => Promise<string>,
): Promise<MetricsServer | undefined> {
  const { metricsSocketPath: socketPath, metricsGroup: group = "blksnap-metrics" } = options;
  if (socketPath === undefined) return undefined;
  try {
    // It would replace the control socket.
    if (socketPath === options.socketPath) throw new Error("that is the control socket");
    const onError = (error: Error) =>
      options.logger.warn({ err: error }, "the metrics server failed");
    return await startMetricsServer({ socketPath, group, text, onError });
  } catch (error) {
    options.logger.error({ err: error, socketPath }, "there is no metrics socket");
    return undefined;
  }
}

function listenAt(
  app: FastifyInstance,
  { socketPath, group = SOCKET_GROUP, listenFd }: ControlServerOptions,
): Promise<ClaimedSocket> {
  // A socket's own path is temporary or unknown: the log names the final one.
  const listenTextResolver = () => `control API listens at ${socketPath}`;
  if (listenFd === undefined) {
    return claimSocket(socketPath, group, (path) => app.listen({ path, listenTextResolver }));
  }
  const given: FastifyListenOptions & { fd: number } = {
    fd: listenFd,
    path: socketPath,
    listenTextResolver,
  };
  // Node does not know the address of a descriptor, which the framework asks for.
  app.server.address = () => socketPath;
  return app.listen(given).then(() => ({ release: async () => undefined }));
}

/**
 * Starts the control API at `socketPath`.
 * @throws ControlError ALREADY_RUNNING if another daemon serves there, SOCKET_FAILED if the socket cannot be created
 */
export async function startControlServer(options: ControlServerOptions): Promise<ControlServer> {
  const { socketPath, version = "0.0.0" } = options;
  const { requestTimeoutMs = REQUEST_TIMEOUT_DEFAULT_MS } = options;
  let control = options.control;
  const log: FastifyBaseLogger = options.logger;
  const open = new OpenRequests();
  const counters = new RequestCounters();
  const app = createApp(log, requestTimeoutMs);
  const routes = new RouteTable(app);
  addHooks(app, counters, routes, options.events);
  function driver(): DriverControl {
    if (open.closing) throw new ControlError("SHUTTING_DOWN", "the daemon is stopping");
    if (control === undefined) throw new ControlError("STARTING", "the daemon is starting");
    return control;
  }
  const { daemon, nbd, events } = options;
  addRoutes({ app, driver, daemon, nbd, events, open, counters, log });
  addDescriptionRoute(app, version, () => routes.requests);
  app.server.maxConnections = CONNECTIONS_MAX;
  app.server.on("checkExpectation", answerExpectation);
  // First, so that a client that finds the daemon serving finds its metrics, too.
  const metrics = await metricsServer(options, () => metricsText({ driver, counters }));
  const socket = await listenAt(app, options).catch(async (error: unknown) => {
    await Promise.all([app.close(), metrics?.close()]);
    if (error instanceof ControlError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    throw new ControlError("SOCKET_FAILED", `can't listen at ${socketPath}: ${message}`, {
      cause: error,
      ...(code === undefined ? {} : { errnoName: code }),
    });
  });
  // A connection that cannot be accepted, as for lack of memory. Without a listener this error ends the process.
  app.server.on("error", (error) => log.warn({ err: error }, "the control API failed"));
  return {
    socketPath,
    serve: (driverControl) => {
      control = driverControl;
    },
    close: async (graceMs = CLOSE_GRACE_MS) => {
      await Promise.all([socket.release(), metrics?.close()]);
      open.close();
      const grace = new AbortController();
      const cut = sleep(graceMs, undefined, { signal: grace.signal, ref: false }).then(
        () => app.server.closeAllConnections(),
        () => undefined,
      );
      await app.close();
      grace.abort();
      await cut;
    },
  };
}
