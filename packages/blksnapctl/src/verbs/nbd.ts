/** nbd list: what the daemon exports over NBD. */
import type { StatusResponse } from "@blksnap/api";
import { type Column, formatTable } from "../table.js";
import { formatBytes } from "../units.js";
import type { Context, Given } from "../verb.js";

interface Export {
  readonly kind: "front" | "image";
  readonly device: string;
  readonly snapshot_id: string | null;
  readonly capacity_bytes: number;
  readonly nbd_uri: string;
}

export async function nbd(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const exports = exportsOf(await client.status());
  if (json) return printJson({ exports });
  const exact = given.has("bytes");
  const columns: readonly Column<Export>[] = [
    { title: "DEVICE", value: ({ device }) => device },
    { title: "EXPORT", value: ({ kind }) => kind },
    {
      title: "SIZE",
      align: "right",
      value: ({ capacity_bytes }) => formatBytes(capacity_bytes, exact),
    },
    { title: "URI", value: ({ nbd_uri }) => nbd_uri },
  ];
  if (exports.length > 0) print(formatTable(exports, columns));
}

function exportsOf({ trackers, snapshots }: StatusResponse): Export[] {
  const sizes = new Map(trackers.map(({ device, capacity_bytes }) => [device, capacity_bytes]));
  const fronts = trackers.map((tracker) => ({
    ...tracker,
    kind: "front" as const,
    snapshot_id: null,
  }));
  const images = snapshots.flatMap(({ id, devices }) =>
    devices.map(({ device, nbd_uri }) => ({
      kind: "image" as const,
      device,
      snapshot_id: id,
      capacity_bytes: sizes.get(device) ?? 0,
      nbd_uri,
    })),
  );
  return [...fronts, ...images]
    .flatMap(({ kind, device, snapshot_id, capacity_bytes, nbd_uri }) =>
      nbd_uri === null ? [] : [{ kind, device, snapshot_id, capacity_bytes, nbd_uri }],
    )
    .toSorted((a, b) => a.device.localeCompare(b.device, "en", { numeric: true }));
}
