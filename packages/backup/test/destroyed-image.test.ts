/** The snapshot is destroyed while it is exported, to each kind of target: said by name, and nothing looks complete. */
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { PassThrough } from "node:stream";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { exportQcow2 } from "../dist/export-qcow2.js";
import { exportRaw } from "../dist/export-raw.js";
import { type ExportOptions, exportToStore } from "../dist/export-store.js";
import { exportStream } from "../dist/export-stream.js";
import { restoreStream } from "../dist/restore-stream.js";
import { openImage } from "../dist/source.js";
import { BackupStore } from "../dist/store.js";
import { FakeMachine, failureOf, MIB } from "./fake-machine.js";

const CAPACITY_BYTES = 9 * MIB;

/** It goes behind the first read. */
function vanishing(machine: FakeMachine): ExportOptions["open"] {
  return async (path) => {
    const image = await openImage(path);
    let reads = 0;
    const read: typeof image.read = async (data, offsetBytes) => {
      if (++reads > 1) {
        machine.snapshotId = null;
        await image.close();
      }
      await image.read(data, offsetBytes);
    };
    return { ...image, read };
  };
}

interface Kind {
  readonly run: (options: ExportOptions) => Promise<unknown>;
  readonly isComplete: () => Promise<boolean>;
  /** The end's name where another program meets the failure. */
  readonly code?: string;
}

function kindsOf(machine: FakeMachine): Record<string, Kind> {
  const at = (name: string): string => machine.path(name);
  return {
    store: {
      run: async (options) => exportToStore(await BackupStore.openOrCreate(at("store")), options),
      isComplete: async () => (await (await BackupStore.open(at("store"))).points()).length > 0,
    },
    raw: {
      run: (options) => exportRaw({ ...options, target: at("raw") }),
      isComplete: async () => existsSync(at("raw")),
    },
    "raw by threads": {
      run: (options) => exportRaw({ ...options, target: at("threads"), threadsMinBytes: 0 }),
      isComplete: async () => existsSync(at("threads")),
    },
    qcow2: {
      run: (options) => exportQcow2({ ...options, folder: at("chain") }),
      isComplete: async () => readdirSync(at("chain")).some((name) => name.endsWith(".qcow2")),
    },
    stream: {
      run: async (options) => {
        const input = new PassThrough();
        const write = async (data: Uint8Array) => void input.write(Buffer.from(data));
        const sink = { write, end: async () => void input.end() };
        const sent = exportStream({ ...options, wanted: { kind: "full" }, sink });
        const [restored, exported] = await Promise.allSettled([
          restoreStream({ input, target: at("piped") }),
          sent,
        ]);
        if (exported.status === "rejected") assert.is(exported.reason.code, "SNAPSHOT_NOT_FOUND");
        if (restored.status === "rejected") throw restored.reason;
      },
      isComplete: async () => existsSync(at("piped")),
      code: "BACKUP_INCOMPLETE",
    },
  };
}

test("a snapshot that is destroyed while it is exported, to each kind of target", async () => {
  const machine = new FakeMachine(CAPACITY_BYTES);
  machine.write(0, randomBytes(CAPACITY_BYTES));
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  const options: ExportOptions = { ...own, wanted: { kind: "auto" } };
  const kinds = kindsOf(machine);
  for (const [name, { run, isComplete, code = "SNAPSHOT_NOT_FOUND" }] of Object.entries(kinds)) {
    const error = await failureOf(run({ ...options, open: vanishing(machine) }));
    assert.is(error.code, code, `${name}: ${error.message}`);
    assert.match(error.message, `of ${device} is gone`, name);
    assert.not.ok(await isComplete(), name);
    await run(options);
    assert.ok(await isComplete(), name);
  }
  machine.remove();
});

test.run();
