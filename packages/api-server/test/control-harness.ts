/** A control server with a fake driver on its own socket, and bare HTTP to talk to it. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DriverControl } from "@blksnap/api";
import pino from "pino";
import {
  type ControlServer,
  type ControlServerOptions,
  startControlServer,
} from "../dist/server.js";
import { FakeDriver } from "../dist/testing/fake-driver.js";

export interface Harness {
  readonly server: ControlServer;
  readonly driver: FakeDriver;
  readonly socketPath: string;
  /** Every line that was logged. */
  readonly log: string[];
  stop(): Promise<void>;
}

export function silentLogger(lines: string[] = []): pino.Logger {
  return pino({ level: "info" }, { write: (line) => void lines.push(line) });
}

export async function startHarness(
  wrap: (driver: FakeDriver) => DriverControl = (driver) => driver,
  options: Pick<ControlServerOptions, "requestTimeoutMs"> = {},
): Promise<Harness> {
  const dir = await mkdtemp(join(tmpdir(), "blksnap-control-"));
  const socketPath = join(dir, "s.sock");
  const driver = new FakeDriver();
  const log: string[] = [];
  const server = await startControlServer({
    socketPath,
    logger: silentLogger(log),
    control: wrap(driver),
    ...options,
  });
  return {
    server,
    driver,
    socketPath,
    log,
    stop: async () => {
      await server.close();
      await rm(dir, { recursive: true });
    },
  };
}

export interface Answer {
  readonly status: number;
  readonly type: string;
  readonly bytes: Buffer;
  /** The header Allow. */
  readonly allow: string | undefined;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  readonly json: any;
}

export interface Ask {
  readonly method?: string;
  readonly body?: unknown;
  /** Sent unchanged, instead of `body`. */
  readonly text?: string;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export function ask(socketPath: string, path: string, options: Ask = {}): Promise<Answer> {
  const text =
    options.text ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  const method = options.method ?? (text === undefined ? "GET" : "POST");
  return new Promise((done, fail) => {
    const outgoing = request({
      socketPath,
      path,
      method,
      agent: false,
      headers: {
        ...options.headers,
        ...(text !== undefined && { "content-type": options.type ?? "application/json" }),
      },
    });
    outgoing.on("error", fail);
    outgoing.on("response", (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", fail);
      response.on("end", () => {
        const bytes = Buffer.concat(parts);
        const type = response.headers["content-type"] ?? "";
        const isJson = type.startsWith("application/json") && bytes.length > 0;
        const json = isJson ? JSON.parse(bytes.toString()) : undefined;
        const { allow } = response.headers;
        done({ status: response.statusCode ?? 0, type, bytes, allow, json });
      });
    });
    outgoing.end(text);
  });
}

export async function openDescriptors(): Promise<number> {
  return (await readdir("/proc/self/fd")).length;
}
