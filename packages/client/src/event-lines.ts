/** Events that come as lines, until their stream ends or says why it failed. */
import { errorFromAnswer } from "./client-error.js";
import { type Call, parsed, sendForLines } from "./transport.js";

export async function* eventLines<Event>(call: Call): AsyncGenerator<Event> {
  for await (const line of sendForLines(call)) {
    const error = errorFromAnswer(line);
    if (error !== undefined) throw error;
    yield parsed<Event>(line);
  }
}
