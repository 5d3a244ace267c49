/** Context of every group of routes, and builders for the schemas of responses. */

import type {
  DaemonControl,
  DriverControl,
  EventLogControl,
  NbdControl,
  OperationId,
} from "@blksnap/api";
import { statusSchemas } from "@blksnap/api";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import type { OpenRequests } from "./open-requests.js";
import type { RequestCounters } from "./request-counters.js";

declare module "fastify" {
  interface FastifySchema {
    /** Its name and words in the description of the API. */
    operation?: OperationId;
  }
}

export interface RouteContext {
  readonly app: FastifyInstance;
  /** The driver; throws STARTING before there is one. */
  readonly driver: () => DriverControl;
  /** Absent if the server belongs to another program. */
  readonly daemon: DaemonControl | undefined;
  /** Absent if the server belongs to another program. */
  readonly nbd: NbdControl | undefined;
  /** Absent if the server belongs to another program. */
  readonly events: EventLogControl | undefined;
  readonly open: OpenRequests;
  readonly counters: RequestCounters;
  readonly log: FastifyBaseLogger;
}

/** Media type of a response in lines, each a JSON document. */
export const LINES_TYPE = "application/x-ndjson";
/** Media type of server-sent events. */
export const EVENT_STREAM_TYPE = "text/event-stream";

/** Responses by media type; errors are the same for all. */
export interface Answers {
  readonly 200: { readonly content: Readonly<Record<string, { readonly schema: object }>> };
}

function answersOf(schemas: Readonly<Record<string, object>>): Answers {
  const content = Object.entries(schemas).map(([type, schema]) => [type, { schema }]);
  return { 200: { content: Object.fromEntries(content) } };
}

/** The responses of an operation that returns one JSON document. */
export function answers(success: object): Answers {
  return answersOf({ "application/json": success });
}

/** The responses of an operation that returns a document or, to clients that accept them, lines. */
export function answersInLines(success: object, lines: readonly object[]): Answers {
  const line = { anyOf: [...lines, statusSchemas.errorResponse] };
  return answersOf({ "application/json": success, [LINES_TYPE]: line });
}

/** The responses of a stream of documents, in lines or as server-sent events. */
export function streamAnswers(document: object): Answers {
  return answersOf({
    [LINES_TYPE]: { anyOf: [document, statusSchemas.errorResponse] },
    [EVENT_STREAM_TYPE]: { type: "string" },
  });
}

export const binaryAnswers: Answers = answersOf({
  "application/octet-stream": { type: "string", format: "binary" },
});
export const textAnswers: Answers = answersOf({ "text/plain": { type: "string" } });
