/** Exports and points for tests of a store's maintenance. */
import { randomUUID } from "node:crypto";
import { CHUNK_BYTES } from "../dist/chunks.js";
import type { ExportOptions } from "../dist/export-store.js";
import type { Manifest } from "../dist/manifest.js";
import { type FakeMachine, MIB } from "./fake-machine.js";

export function optionsOf({ client, device }: FakeMachine): ExportOptions {
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" } };
}

export function pointAt(taken_at: string, device = "/dev/a"): Manifest {
  return {
    ...{
      id: randomUUID(),
      taken_at,
      host: "here",
      device,
      capacity_bytes: 1,
      chunk_bytes: CHUNK_BYTES,
    },
    ...{ generation_id: "g", changes_number: 1, kind: "full", parent: null, read_bytes: 0 },
    ...{ stored_bytes: 0, ranges: null, chunks: [null] },
  };
}
