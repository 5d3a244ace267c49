/** Responds to bytes that are not HTTP, and to truncated requests. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { answerFor, ControlError } from "@blksnap/api";

const LARGE = new Set(["HPE_HEADER_OVERFLOW", "HPE_CHUNK_EXTENSIONS_OVERFLOW"]);

function errorFor(code: string | undefined): ControlError {
  if (code !== undefined && LARGE.has(code)) {
    return new ControlError("REQUEST_TOO_LARGE", "the request's header is too long");
  }
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return new ControlError("REQUEST_TOO_SLOW", "the request did not arrive in time");
  }
  return new ControlError("REQUEST_INVALID", "the request is not HTTP");
}

/** Node passes the bare socket here: writes the response by hand, and closes the socket. */
export function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable || socket.destroyed) {
    socket.destroy();
    return;
  }
  const { httpStatus, error: body } = answerFor(errorFor(error.code));
  const text = JSON.stringify({ error: body });
  socket.end(
    `HTTP/1.1 ${httpStatus} Error\r\nconnection: close\r\ncontent-type: application/json\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    // Otherwise a client that never closes its side keeps the descriptor open.
    () => socket.destroy(),
  );
}

/** Handles an `Expect` header other than `100-continue`; Node alone would send no body. */
export function answerExpectation(_request: IncomingMessage, response: ServerResponse): void {
  const why = "the only expectation that this server supports is 100-continue";
  const { httpStatus, error } = answerFor(new ControlError("REQUEST_INVALID", why));
  const text = JSON.stringify({ error });
  response.writeHead(httpStatus, {
    connection: "close",
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
  });
  response.end(text);
}
