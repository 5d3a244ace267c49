/** A control server with a fake driver, and a client of it. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FakeDaemon, startFakeDaemon } from "../../api-server/dist/testing/fake-daemon.js";
import type { FakeDriver } from "../../api-server/dist/testing/fake-driver.js";
import { BlksnapClient } from "../dist/client.js";
import type { BlksnapClientError } from "../dist/client-error.js";

/** Longer than any call here, however busy the machine is. */
export const CLIENT_TIMEOUT_MS = 200_000;

export interface Harness {
  readonly client: BlksnapClient;
  readonly driver: FakeDriver;
  readonly daemon: FakeDaemon;
  readonly socketPath: string;
  /** A snapshot of /dev/loop0, not taken. */
  create(): Promise<string>;
  stop(): Promise<void>;
}

export async function startHarness(): Promise<Harness> {
  const dir = await mkdtemp(join(tmpdir(), "blksnap-client-"));
  const socketPath = join(dir, "s.sock");
  const daemon = await startFakeDaemon(socketPath);
  const { driver, server } = daemon;
  const client = new BlksnapClient({ socketPath, timeoutMs: CLIENT_TIMEOUT_MS });
  return {
    client,
    driver,
    daemon,
    socketPath,
    create: async () => {
      const stores = ["/var/tmp"];
      return (await client.snapshotCreate({ devices: ["/dev/loop0"], stores, limitBytes: 1 << 20 }))
        .id;
    },
    stop: async () => {
      await server.close();
      await rm(dir, { recursive: true });
    },
  };
}

/** The error of a call. */
export async function failureOf(call: Promise<unknown>): Promise<BlksnapClientError> {
  try {
    await call;
  } catch (error) {
    return error as BlksnapClientError;
  }
  throw new Error("the call did not fail");
}
