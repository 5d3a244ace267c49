/** The whole control API over a fake driver, for tests of programs that talk to the daemon. */
import pino from "pino";
import { type ControlServer, startControlServer } from "../server.js";
import { FakeDriver } from "./fake-driver.js";

export interface FakeDaemon {
  readonly driver: FakeDriver;
  readonly server: ControlServer;
}

/** Listens at `socketPath` until `server.close()`. Logs nothing. */
export async function startFakeDaemon(socketPath: string): Promise<FakeDaemon> {
  const driver = new FakeDriver();
  const logger = pino({ level: "silent" });
  return { driver, server: await startControlServer({ socketPath, logger, control: driver }) };
}
