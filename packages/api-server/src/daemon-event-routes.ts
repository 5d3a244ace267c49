/** The log of the whole daemon: what is kept of it, or all that comes besides. */
import {
  type DaemonEventsHeaders,
  type DaemonEventsQuery,
  daemonEventSchemas,
  type EventLogOptions,
} from "@blksnap/api";
import { streamEvents } from "./event-stream.js";
import { type RouteContext, streamAnswers } from "./route-context.js";

/** A client that connects again asks for the same as before, and says besides how far it has come. */
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
      // One that starts or stops says so.
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
