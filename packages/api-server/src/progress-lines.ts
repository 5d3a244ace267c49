/** A response in lines of JSON: progress of an operation, then its result or its failure. */

import { answerFor, errorNameOf } from "@blksnap/api";
import type { FastifyReply } from "fastify";
import { LINES_TYPE } from "./route-context.js";

export class ProgressLines {
  readonly #reply: FastifyReply;
  #isBegun = false;

  constructor(reply: FastifyReply) {
    this.#reply = reply;
  }

  /** Dropped while the client reads more slowly: only the newest matters. */
  report(progress: object): void {
    const { raw } = this.#reply;
    if (!this.#isBegun) {
      this.#isBegun = true;
      this.#reply.hijack();
      raw.writeHead(200, { "content-type": LINES_TYPE });
    }
    if (!raw.destroyed && !raw.writableNeedDrain) raw.write(lineOf(progress));
  }

  /** Returned by a handler: an ordinary response if there was no progress to report. */
  async answer<Result extends object>(operation: Promise<Result>): Promise<Result | FastifyReply> {
    try {
      const result = await operation;
      return this.#isBegun ? this.#end(result) : result;
    } catch (error) {
      if (!this.#isBegun) throw error;
      const { log, request } = this.#reply;
      if (errorNameOf(error) === "INTERNAL") log.error({ err: error, url: request.url }, "failed");
      return this.#end({ error: answerFor(error).error });
    }
  }

  #end(last: object): FastifyReply {
    this.#reply.raw.end(lineOf(last));
    return this.#reply;
  }
}

function lineOf(document: object): string {
  return `${JSON.stringify(document)}\n`;
}
