/** One HTTP request over the daemon's Unix socket. */
import { type IncomingMessage, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { BlksnapClientError, connectionError, errorFromAnswer } from "./client-error.js";
import { RunLimit } from "./run-limit.js";

export interface CallOptions {
  /** Cancels the call, which then fails with ABORTED. The daemon finishes what it has begun, except a create. */
  readonly signal?: AbortSignal | undefined;
  /** Time limit for the whole response, of the time in which this process runs; 0: none. */
  readonly timeoutMs?: number | undefined;
}

/** The options, with a time limit if the caller sets none. */
export function limited(options: CallOptions, usualMs: number): CallOptions {
  return { ...options, timeoutMs: options.timeoutMs ?? usualMs };
}

/** Media type of a response that begins with progress reports. */
const LINES_TYPE = "application/x-ndjson";

export interface Call extends CallOptions {
  readonly socketPath: string;
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  /** Whether the response may come in lines; the timeout is then for each line. */
  readonly inLines?: boolean | undefined;
  /** How long to wait for a daemon that is not there yet. */
  readonly waitMs?: number | undefined;
  /** Called once when that wait begins. */
  readonly onWait?: (() => void) | undefined;
}

const WAIT_INTERVAL_MS = 50;
/**
 * Otherwise Node checks whether the host is an address, and compiles its expression for IPv6: 8 ms in each process.
 */
const NO_SERVER_NAME = { servername: "" };
/** Errors of a daemon that starts, leaves to the next one, or whose socket does not exist yet: it has begun nothing. */
const NOT_YET: readonly string[] = ["DAEMON_NOT_RUNNING", "STARTING", "SHUTTING_DOWN"];

export interface OpenAnswer {
  readonly response: IncomingMessage;
  /** The operation makes progress: restarts the timeout. */
  readonly gotOn: () => void;
  /** Stops the timer and the signal listener, and closes the connection if it is still open. */
  readonly close: () => void;
  /** Why this side closed the connection, if it did. */
  readonly given: () => BlksnapClientError | undefined;
}

function failure(error: Error, call: Call): BlksnapClientError {
  return error instanceof BlksnapClientError ? error : connectionError(error, call.socketPath);
}

/**
 * Sends the request; resolves when the response's header has arrived, whatever its status. Retries for `waitMs` if
 * the daemon is not there yet, because then it has begun nothing.
 */
async function open(call: Call): Promise<OpenAnswer> {
  const { waitMs = 0, onWait, signal } = call;
  const limit = new RunLimit(waitMs);
  try {
    for (let isFirst = true; ; isFirst = false) {
      try {
        const answer = await openOnce(call);
        if (waitMs === 0 || answer.response.statusCode !== 503) return answer;
        throw await errorOf(answer, call);
      } catch (error) {
        const isNotYet = error instanceof BlksnapClientError && NOT_YET.includes(error.code);
        if (!isNotYet || limit.isOver || signal?.aborted === true) throw error;
      }
      if (isFirst) onWait?.();
      await sleep(WAIT_INTERVAL_MS);
    }
  } finally {
    limit.end();
  }
}

/** The error in a response whose status is an error. */
async function errorOf(answer: OpenAnswer, call: Call): Promise<BlksnapClientError> {
  const { response, given } = answer;
  try {
    let text = "";
    response.setEncoding("utf8");
    for await (const part of response) text += part;
    return errorFromAnswer(text) ?? notOurs(response);
  } catch (error) {
    return failure(given() ?? (error as Error), call);
  } finally {
    answer.close();
  }
}

function openOnce(call: Call): Promise<OpenAnswer> {
  const { socketPath, method, path, signal, timeoutMs = 0 } = call;
  return new Promise((done, fail) => {
    const text = call.body === undefined ? undefined : JSON.stringify(call.body);
    const outgoing = request({
      socketPath,
      method,
      path,
      agent: false,
      ...NO_SERVER_NAME,
      headers: {
        ...(call.inLines === true && { accept: `${LINES_TYPE}, application/json` }),
        ...(text !== undefined && {
          "content-type": "application/json",
          "content-length": Buffer.byteLength(text),
        }),
      },
    });
    let given: BlksnapClientError | undefined;
    function giveUp(error: BlksnapClientError): void {
      given ??= error;
      outgoing.destroy(error);
    }
    function onAbort(): void {
      giveUp(new BlksnapClientError("ABORTED", "the request was cancelled"));
    }
    const limit = new RunLimit(timeoutMs, () => {
      giveUp(new BlksnapClientError("TIMEOUT", `no answer within ${timeoutMs / 1000} s`));
    });
    function release(): void {
      limit.end();
      signal?.removeEventListener("abort", onAbort);
    }
    outgoing.on("error", (error) => {
      release();
      fail(failure(given ?? error, call));
    });
    outgoing.once("response", (response) => {
      done({
        response,
        gotOn: () => limit.restart(),
        given: () => given,
        close: () => {
          release();
          response.destroy();
        },
      });
    });
    if (signal?.aborted === true) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    outgoing.end(text);
  });
}

/** The whole response; throws its error if its status is one. */
export async function send(call: Call): Promise<Buffer> {
  const answer = await open(call);
  try {
    const parts: Buffer[] = [];
    for await (const part of answer.response) parts.push(part as Buffer);
    const whole = Buffer.concat(parts);
    if (answer.response.statusCode === 200) return whole;
    throw errorFromAnswer(whole.toString()) ?? notOurs(answer.response);
  } catch (error) {
    throw failure(answer.given() ?? (error as Error), call);
  } finally {
    answer.close();
  }
}

function notOurs(response: IncomingMessage): BlksnapClientError {
  const status = response.statusCode ?? 0;
  return new BlksnapClientError("RESPONSE_INVALID", `unknown answer with HTTP status ${status}`);
}

/** The response as JSON. */
export async function sendForJson<T>(call: Call): Promise<T> {
  return parsed((await send(call)).toString());
}

/** @throws BlksnapClientError RESPONSE_INVALID */
export function parsed<T>(text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new BlksnapClientError("RESPONSE_INVALID", "the answer is not JSON", { cause });
  }
}

/** The lines of a streamed response, as they arrive. */
export async function* sendForLines(call: Call): AsyncGenerator<string> {
  const answer = await open(call);
  try {
    const { response } = answer;
    response.setEncoding("utf8");
    if (response.statusCode !== 200) {
      let text = "";
      for await (const part of response) text += part;
      throw errorFromAnswer(text) ?? notOurs(response);
    }
    let rest = "";
    for await (const part of response) {
      if (call.inLines === true) answer.gotOn();
      const lines = (rest + part).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
    // A response that is not in lines has no end of line.
    if (rest !== "") yield rest;
  } catch (error) {
    throw failure(answer.given() ?? (error as Error), call);
  } finally {
    answer.close();
  }
}
