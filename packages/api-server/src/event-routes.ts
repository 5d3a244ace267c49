/** Routes on which a client waits: one event, or all of them as a stream. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import {
  answerFor,
  ControlError,
  eventSchemas,
  type FollowEventsQuery,
  type SnapshotEvent,
  type SnapshotId,
  snapshotSchemas,
  type WaitEventQuery,
} from "@blksnap/api";
import { answers, LINES_TYPE, type RouteContext, streamAnswers } from "./route-context.js";

/** Sends each event as a line, no faster than the client reads. */
async function sendLines(
  events: AsyncIterable<SnapshotEvent>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  for await (const event of events) {
    if (signal.aborted) return;
    if (!response.write(`${JSON.stringify(event)}\n`)) await once(response, "drain", { signal });
  }
}

export function addEventRoutes({ app, driver, open, log }: RouteContext): void {
  function stopping(): ControlError {
    return new ControlError("SHUTTING_DOWN", "the daemon is stopping");
  }

  app.get<{ Params: SnapshotId; Querystring: WaitEventQuery }>(
    "/v1/snapshots/:id/events",
    {
      schema: {
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
        params: snapshotSchemas.snapshotId,
        response: answers(eventSchemas.listEventsResponse),
      },
    },
    async ({ params }) => ({ events: await driver().listEvents(params.id.toLowerCase()) }),
  );

  app.get<{ Params: SnapshotId; Querystring: FollowEventsQuery }>(
    "/v1/snapshots/:id/events/follow",
    {
      schema: {
        params: snapshotSchemas.snapshotId,
        querystring: eventSchemas.followEventsQuery,
        response: streamAnswers,
      },
    },
    async (request, reply) => {
      const response = reply.raw;
      const signal = open.signalFor(response);
      const id = request.params.id.toLowerCase();
      const events = await driver().followEvents(id, request.query.from ?? 0, signal);
      reply.hijack();
      response.writeHead(200, { "content-type": LINES_TYPE });
      // The client learns now that it is connected, however long the first event takes.
      response.flushHeaders();
      try {
        await sendLines(events, response, signal);
      } catch (error) {
        if (!signal.aborted) {
          log.error({ err: error, snapshot: id }, "event stream failed");
          response.write(`${JSON.stringify({ error: answerFor(error).error })}\n`);
        }
      }
      if (open.closing && !response.destroyed) {
        response.write(`${JSON.stringify({ error: answerFor(stopping()).error })}\n`);
      }
      response.end();
    },
  );
}
