/** Routes of the daemon's log: its kept events, or a stream that continues with new ones. */
import {
  type DaemonEventsHeaders,
  type DaemonEventsQuery,
  daemonEventSchemas,
  type EventLogOptions,
} from "@blksnap/api";
import { streamEvents } from "./event-stream.js";
import { type RouteContext, streamAnswers } from "./route-context.js";

/** A client that reconnects repeats its request, and adds the last event that it has received. */
function wantedBy(query: DaemonEventsQuery, headers: DaemonEventsHeaders): EventLogOptions {
  const [log, sequence] = headers["last-event-id"]?.split(":") ?? [];
  const { since, follow } = query;
  if (sequence === undefined) return { since, log: query.log, follow };
  return { since: Number(sequence), log, follow };
}

export function addDaemonEventRoutes({ app, driver, events, open, log }: RouteContext): void {
  if (events === undefined) return;
  app.get<{ Querystring: DaemonEventsQuery; Headers: DaemonEventsHeaders }>(
    "/v1/events",
    {
      schema: {
        operation: "readDaemonEvents",
        querystring: daemonEventSchemas.daemonEventsQuery,
        headers: daemonEventSchemas.daemonEventsHeaders,
        response: streamAnswers(daemonEventSchemas.daemonEvent),
      },
    },
    async ({ query, headers }, reply) => {
      // Throws while the daemon starts or stops.
      driver();
      const signal = open.signalFor(reply.raw);
      const stream = {
        events: events.read(wantedBy(query, headers), signal),
        idOf: (event: { readonly log: string; readonly sequence: number }) =>
          `${event.log}:${event.sequence}`,
        accept: headers.accept,
        of: {},
        isEndless: query.follow === true,
      };
      await streamEvents(stream, reply, signal, { open, log });
    },
  );
}
