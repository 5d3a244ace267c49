/** Events as a stream: a JSON document on each line, or server-sent events for clients that ask for these. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { answerFor, ControlError } from "@blksnap/api";
import type { FastifyBaseLogger, FastifyReply } from "fastify";
import type { OpenRequests } from "./open-requests.js";
import { EVENT_STREAM_TYPE, LINES_TYPE } from "./route-context.js";

/** How documents follow each other on a connection. */
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

/** Their clients connect again by themselves, and say with which event they broke off. */
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
  /** By which a client says with which event it broke off. */
  readonly idOf: (event: Event) => string;
  /** What the client takes. */
  readonly accept: string | undefined;
  /** For the log: whose events these are. */
  readonly of: object;
  /** Whether it continues for as long as the daemon does: then its end by that is said. */
  readonly isEndless: boolean;
}

/** Answers with the events, until they end, the client has gone or the daemon stops. */
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
  // The client learns now that it is connected, however long the first event takes.
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
