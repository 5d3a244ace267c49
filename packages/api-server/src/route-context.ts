/** What every group of routes gets, and how the schemas of answers are put together. */

import type { DaemonControl, DriverControl } from "@blksnap/api";
import { statusSchemas } from "@blksnap/api";
import type { FastifyBaseLogger, FastifyInstance } from "fastify";
import type { OpenRequests } from "./open-requests.js";
import type { RequestCounters } from "./request-counters.js";

export interface RouteContext {
  readonly app: FastifyInstance;
  /** The driver; throws STARTING while there is none yet. */
  readonly driver: () => DriverControl;
  /** Absent where the server belongs to another program. */
  readonly daemon: DaemonControl | undefined;
  readonly open: OpenRequests;
  readonly counters: RequestCounters;
  readonly log: FastifyBaseLogger;
}

/** Of an answer in lines, each of them a JSON document. */
export const LINES_TYPE = "application/x-ndjson";

type Answers = Readonly<Record<string, unknown>>;

const failures: Answers = {
  "4xx": statusSchemas.errorResponse,
  "5xx": statusSchemas.errorResponse,
};

/** The answers of an operation that gives one JSON document. */
export function answers(success: unknown): Answers {
  return { 200: success, ...failures };
}

/** The answers of an operation that tells its progress, to clients that ask for lines, before `success`. */
export function answersWithProgress(success: object, progress: object): Answers {
  const content = {
    "application/json": { schema: success },
    [LINES_TYPE]: { schema: { anyOf: [progress, success, statusSchemas.errorResponse] } },
  };
  return { 200: { description: "Default Response", content }, ...failures };
}

function otherAnswers(type: string, schema: object): Answers {
  return { 200: { description: type, content: { [type]: { schema } } }, ...failures };
}

export const binaryAnswers: Answers = otherAnswers("application/octet-stream", {
  type: "string",
  format: "binary",
});
export const streamAnswers: Answers = otherAnswers(LINES_TYPE, { type: "string" });
export const textAnswers: Answers = otherAnswers("text/plain", { type: "string" });
