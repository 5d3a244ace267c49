/** Routes on which a client waits: one event, or all of them as a stream. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import {
  answerFor,
  ControlError,
  eventSchemas,
  type FollowEventsHeaders,
  type FollowEventsQuery,
  type SnapshotEvent,
  type SnapshotId,
  snapshotSchemas,
  type WaitEventQuery,
} from "@blksnap/api";
import {
  answers,
  EVENT_STREAM_TYPE,
  LINES_TYPE,
  type RouteContext,
  streamAnswers,
} from "./route-context.js";

/** How documents follow each other on a connection. */
interface Framing {
  readonly type: string;
  readonly event: (event: SnapshotEvent) => string;
  readonly failure: (failure: object) => string;
}

const LINES: Framing = {
  type: LINES_TYPE,
  event: (event) => `${JSON.stringify(event)}\n`,
  failure: (failure) => `${JSON.stringify(failure)}\n`,
};

/** Their clients connect again by themselves, and say with which event they broke off. */
const SERVER_SENT: Framing = {
  type: EVENT_STREAM_TYPE,
  event: (event) =>
    `id: ${event.sequence}\nevent: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`,
  failure: (failure) => `event: failure\ndata: ${JSON.stringify(failure)}\n\n`,
};

/** Sends each event, no faster than the client reads. */
async function sendEvents(
  events: AsyncIterable<SnapshotEvent>,
  { event: framed }: Framing,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  for await (const event of events) {
    if (signal.aborted) return;
    if (!response.write(framed(event))) await once(response, "drain", { signal });
  }
}

/** A client that connects again asks for the same as before, and says besides how far it has come. */
function firstWanted(query: FollowEventsQuery, headers: FollowEventsHeaders): number {
  const last = headers[eventSchemas.LAST_EVENT_ID];
  return last === undefined ? (query.from ?? 0) : Number(last) + 1;
}

export function addEventRoutes({ app, driver, open, log }: RouteContext): void {
  function stopping(): ControlError {
    return new ControlError("SHUTTING_DOWN", "the daemon is stopping");
  }

  app.get<{ Params: SnapshotId; Querystring: WaitEventQuery }>(
    "/v1/snapshots/:id/events",
    {
      schema: {
        operation: "waitEvent",
        params: snapshotSchemas.snapshotId,
        querystring: eventSchemas.waitEventQuery,
        response: answers(eventSchemas.waitEventResponse),
      },
    },
    async (request, reply) => {
      const signal = open.signalFor(reply.raw);
      const id = request.params.id.toLowerCase();
      try {
        const { timeout_ms, reader } = request.query;
        const event = await driver().waitEvent(id, timeout_ms, signal, reader);
        if (event !== undefined) return { result: "ok", event };
      } catch (error) {
        if (!signal.aborted) throw error;
      }
      if (open.closing) throw stopping();
      return { result: "timeout" };
    },
  );

  app.get<{ Params: SnapshotId }>(
    "/v1/snapshots/:id/events/list",
    {
      schema: {
        operation: "listEvents",
        params: snapshotSchemas.snapshotId,
        response: answers(eventSchemas.listEventsResponse),
      },
    },
    async ({ params }) => ({ events: await driver().listEvents(params.id.toLowerCase()) }),
  );

  app.get<{
    Params: SnapshotId;
    Querystring: FollowEventsQuery;
    Headers: FollowEventsHeaders;
  }>(
    "/v1/snapshots/:id/events/follow",
    {
      schema: {
        operation: "followEvents",
        params: snapshotSchemas.snapshotId,
        querystring: eventSchemas.followEventsQuery,
        headers: eventSchemas.followEventsHeaders,
        response: streamAnswers(eventSchemas.snapshotEvent),
      },
    },
    async ({ params, query, headers }, reply) => {
      const response = reply.raw;
      const signal = open.signalFor(response);
      const id = params.id.toLowerCase();
      const framing = headers.accept?.includes(EVENT_STREAM_TYPE) ? SERVER_SENT : LINES;
      const events = await driver().followEvents(id, firstWanted(query, headers), signal);
      reply.hijack();
      response.writeHead(200, { "content-type": framing.type, "cache-control": "no-store" });
      // The client learns now that it is connected, however long the first event takes.
      response.flushHeaders();
      try {
        await sendEvents(events, framing, response, signal);
      } catch (error) {
        if (!signal.aborted) {
          log.error({ err: error, snapshot: id }, "event stream failed");
          response.write(framing.failure({ error: answerFor(error).error }));
        }
      }
      if (open.closing && !response.destroyed) {
        response.write(framing.failure({ error: answerFor(stopping()).error }));
      }
      response.end();
    },
  );
}
