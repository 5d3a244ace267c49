/** Routes that wait for events: one of them, or all as a stream. */
import {
  eventSchemas,
  type FollowEventsHeaders,
  type FollowEventsQuery,
  type SnapshotEvent,
  type SnapshotId,
  snapshotSchemas,
  type WaitEventQuery,
} from "@blksnap/api";
import { stopping, streamEvents } from "./event-stream.js";
import { answers, type RouteContext, streamAnswers } from "./route-context.js";

/** A client that reconnects repeats its request, and adds the last event that it has received. */
function firstWanted(query: FollowEventsQuery, headers: FollowEventsHeaders): number {
  const last = headers[eventSchemas.LAST_EVENT_ID];
  return last === undefined ? (query.from ?? 0) : Number(last) + 1;
}

export function addEventRoutes({ app, driver, open, log }: RouteContext): void {
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
      const signal = open.signalFor(reply.raw);
      const id = params.id.toLowerCase();
      const stream = {
        events: await driver().followEvents(id, firstWanted(query, headers), signal),
        idOf: ({ sequence }: SnapshotEvent) => String(sequence),
        accept: headers.accept,
        of: { snapshot: id },
        isEndless: true,
      };
      await streamEvents(stream, reply, signal, { open, log });
    },
  );
}
