/** Events as a stream: a JSON document per line, or server-sent events for clients that accept them. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { answerFor, ControlError } from "@blksnap/api";
import type { FastifyBaseLogger, FastifyReply } from "fastify";
import type { OpenRequests } from "./open-requests.js";
import { EVENT_STREAM_TYPE, LINES_TYPE } from "./route-context.js";

/** How documents are framed on a connection. */
interface Framing<Event> {
  readonly type: string;
  readonly event: (event: Event) => string;
  readonly failure: (failure: object) => string;
}

interface Named {
  readonly event: string;
}

function linesOf<Event extends Named>(): Framing<Event> {
  const line = (document: object) => `${JSON.stringify(document)}\n`;
  return { type: LINES_TYPE, event: line, failure: line };
}

/** Clients reconnect by themselves, and name the last event that they received. */
function sentEvents<Event extends Named>(idOf: (event: Event) => string): Framing<Event> {
  return {
    type: EVENT_STREAM_TYPE,
    event: (event) =>
      `id: ${idOf(event)}\nevent: ${event.event}\ndata: ${JSON.stringify(event)}\n\n`,
    failure: (failure) => `event: failure\ndata: ${JSON.stringify(failure)}\n\n`,
  };
}

/** Sends each event, no faster than the client reads. */
async function sendEvents<Event>(
  events: AsyncIterable<Event>,
  { event: framed }: Framing<Event>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  for await (const event of events) {
    if (signal.aborted) return;
    if (!response.write(framed(event))) await once(response, "drain", { signal });
  }
}

export function stopping(): ControlError {
  return new ControlError("SHUTTING_DOWN", "the daemon is stopping");
}

export interface EventStream<Event> {
  readonly events: AsyncIterable<Event>;
  /** The id by which a client names the last event that it received. */
  readonly idOf: (event: Event) => string;
  /** The media type that the client accepts. */
  readonly accept: string | undefined;
  /** The subject of the events, for the log. */
  readonly of: object;
  /** Whether it continues as long as the daemon: then the end of the daemon is reported as an error. */
  readonly isEndless: boolean;
}

/** Sends the events until they end, the client disconnects or the daemon stops. */
export async function streamEvents<Event extends Named>(
  { events, idOf, accept, of, isEndless }: EventStream<Event>,
  reply: FastifyReply,
  signal: AbortSignal,
  { open, log }: { readonly open: OpenRequests; readonly log: FastifyBaseLogger },
): Promise<void> {
  const response = reply.raw;
  const isSent = accept?.includes(EVENT_STREAM_TYPE) === true;
  const framing = isSent ? sentEvents(idOf) : linesOf<Event>();
  reply.hijack();
  response.writeHead(200, { "content-type": framing.type, "cache-control": "no-store" });
  // The client sees the connection now, however late the first event is.
  response.flushHeaders();
  try {
    await sendEvents(events, framing, response, signal);
  } catch (error) {
    if (!signal.aborted) {
      log.error({ err: error, ...of }, "event stream failed");
      response.write(framing.failure({ error: answerFor(error).error }));
    }
  }
  if (isEndless && open.closing && !response.destroyed) {
    response.write(framing.failure({ error: answerFor(stopping()).error }));
  }
  response.end();
}
