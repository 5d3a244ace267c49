/** Sends raw bytes to the control socket, and parses the response as HTTP. */
import { connect } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import type { Hostile } from "./hostile-requests.js";

/** Ends a hang; says nothing about speed. */
const EXCHANGE_LIMIT_MS = 200_000;

export interface RawAnswer {
  readonly status: number;
  readonly headers: string;
  readonly body: string;
}

/** The complete responses at the beginning of the text. Throws if it is not HTTP. */
export function parseAnswers(text: string, isHead = false): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = text;
  while (rest !== "") {
    const found = /^HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n/.exec(rest);
    if (found === null) {
      if (/^H?T?T?P?/.exec(rest)?.[0] !== "" && !rest.includes("\r\n\r\n")) return answers;
      throw new Error(`no HTTP: ${JSON.stringify(rest.slice(0, 200))}`);
    }
    const [whole, status, headers] = found as unknown as [string, string, string];
    const after = rest.slice(whole.length);
    const length = /^content-length: (\d+)\r$/im.exec(headers)?.[1];
    // The server responds to bytes that are not HTTP without looking at the method.
    const isBare = isHead && !/^connection: close\r$/im.test(headers);
    const bodyLength = isBare ? 0 : length === undefined ? after.length : Number(length);
    if (after.length < bodyLength) return answers;
    rest = after.slice(bodyLength);
    if (status === "100") continue;
    answers.push({ status: Number(status), headers, body: after.slice(0, bodyLength) });
  }
  return answers;
}

/** Sends the bytes, and resolves with all that was received when the connection has ended. */
export function exchange(socketPath: string, hostile: Hostile): Promise<string> {
  return new Promise((done, fail) => {
    const { what, parts, ending, isHead } = hostile;
    let text = "";
    const socket = connect(socketPath);
    const limit = setTimeout(() => {
      socket.destroy();
      fail(new Error(`${what}: no end; so far: ${text.slice(0, 300)}`));
    }, EXCHANGE_LIMIT_MS);
    socket.setEncoding("latin1");
    socket.on("data", (part: string) => {
      text += part;
      if (ending === "wait" && parseAnswers(text, isHead).length > 0) socket.destroy();
    });
    // The server need not read what it has already refused.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearTimeout(limit);
      done(text);
    });
    void (async () => {
      for (const part of parts) {
        if (socket.destroyed) return;
        socket.write(part);
        if (parts.length > 1) await turn();
      }
      if (ending === "end") socket.end();
      if (ending === "cut") socket.destroySoon();
    })();
  });
}
