/** The whole control API over a fake driver, for tests of programs that talk to the daemon. */

import type { DaemonControl } from "@blksnap/api";
import { ControlError } from "@blksnap/api";
import pino from "pino";
import { type ControlServer, startControlServer } from "../server.js";
import { FakeDriver } from "./fake-driver.js";
import { FakeEventLog } from "./fake-event-log.js";
import { FakeNbd } from "./fake-nbd.js";

/** Greater than any process id of Linux. */
const NO_PROCESS = 2 ** 22 + 1;

export interface FakeDaemon {
  readonly driver: FakeDriver;
  readonly events: FakeEventLog;
  readonly server: ControlServer;
  /** How it was asked to end, if it was. */
  readonly endings: readonly ("upgrade" | "keep" | "detach")[];
}

/**
 * Listens at `socketPath` until `server.close()`. Logs nothing, and never ends by itself.
 * @param driver of an earlier daemon
 * @param events the log of that daemon
 */
export async function startFakeDaemon(
  socketPath: string,
  driver: FakeDriver = new FakeDriver(),
  events: FakeEventLog = new FakeEventLog(),
): Promise<FakeDaemon> {
  const endings: ("upgrade" | "keep" | "detach")[] = [];
  const daemon: DaemonControl = {
    async upgrade() {
      endings.push("upgrade");
      const { pid, version } = driver.identity;
      driver.identity = {
        pid: pid + 1,
        version: "0.2.0",
        handover: { pid, version, pause_ms: 40 },
      };
      const next = { next_pid: pid + 1, next_version: "0.2.0" };
      return { pid, version, started_by: "supervisor", ...next };
    },
    async stop(keep) {
      const { trackers } = await driver.status();
      if (!keep && trackers.length > 0) {
        throw new ControlError("DAEMON_IN_USE", `in use: ${trackers[0]?.front}: mounted at /mnt`);
      }
      endings.push(keep ? "keep" : "detach");
      driver.identity = { ...driver.identity, pid: NO_PROCESS };
      setImmediate(() => void server.close());
      return { pid: NO_PROCESS, kept: trackers.map(({ front }) => front) };
    },
  };
  const logger = pino({ level: "silent" });
  const nbd = new FakeNbd(driver);
  const controls = { control: driver, daemon, nbd, events };
  const server = await startControlServer({ socketPath, logger, ...controls });
  return { driver, events, server, endings };
}
