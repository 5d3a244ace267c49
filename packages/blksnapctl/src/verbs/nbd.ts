/** nbd list, open, close: exports over NBD, and the TCP addresses that accept clients. */
import {
  type NbdListener,
  parseTcpAddress,
  type StatusResponse,
  type TcpAddress,
  tcpAddressText,
} from "@blksnap/api";
import { quoted } from "../argv.js";
import { type Column, formatTable } from "../table.js";
import { formatBytes } from "../units.js";
import { usageError } from "../usage-error.js";
import { parsePath } from "../values.js";
import type { Context, Given } from "../verb.js";

interface Export {
  readonly kind: "front" | "image";
  readonly device: string;
  readonly snapshot_id: string | null;
  readonly capacity_bytes: number;
  readonly nbd_uri: string;
}

/** Options by the actions that take them, including flags. */
const OF_OPEN = ["tls-certs", "any-client", "writable", "insecure"];

export async function nbd(context: Context, given: Given): Promise<void> {
  const action = given.need("action");
  const strays = action === "list" ? ["tcp", ...OF_OPEN] : action === "close" ? OF_OPEN : [];
  const stray = strays.find((option) => given.has(option));
  if (stray !== undefined) throw usageError(`${stray}: it is not an option of ${action}`, "USAGE");
  if (action === "open") await open(context, given);
  else if (action === "close") await close(context, given);
  else await list(context, given);
}

function tcpOf(given: Given): TcpAddress {
  const text = given.one("tcp");
  const hint = "Give --tcp ADDRESS[:PORT], as 192.0.2.1:10809 or [2001:db8::1]:10809";
  if (text === undefined) throw usageError("Argument 'tcp' is missed", "USAGE", hint);
  const address = parseTcpAddress(text);
  if (address === undefined) {
    throw usageError(`tcp: ${quoted(text)} is not an IP address with a port`, "USAGE", hint);
  }
  return address;
}

async function open({ client, json, print, printJson }: Context, given: Given): Promise<void> {
  const certificates = given.one("tls-certs");
  const opened = await client.nbd.open({
    ...tcpOf(given),
    ...(certificates === undefined ? {} : { certificates: parsePath(certificates, "tls-certs") }),
    any_client: given.has("any-client"),
    writable: given.has("writable"),
    insecure: given.has("insecure"),
  });
  if (json) printJson(opened);
  else print(`${uriOf(opened)}\n`);
}

async function close({ client, json, print, printJson }: Context, given: Given): Promise<void> {
  const closed = await client.nbd.close(tcpOf(given));
  if (json) printJson(closed);
  else print(`Closed ${tcpAddressText(closed)}, connections=${closed.connections}\n`);
}

/** A URI without the name of an export. */
function uriOf(listener: NbdListener): string {
  return `${listener.tls ? "nbds" : "nbd"}://${tcpAddressText(listener)}/`;
}

function clientsOf({ tls, verifies_clients }: NbdListener): string {
  if (!tls) return "of this machine";
  return verifies_clients ? "with a certificate" : "any";
}

async function list({ client, json, print, printJson }: Context, given: Given): Promise<void> {
  const status = await client.status();
  const exports = exportsOf(status);
  const { nbd_listeners: listeners } = status;
  if (json) return printJson({ exports, listeners });
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
  const ofListeners: readonly Column<NbdListener>[] = [
    { title: "TCP", value: uriOf },
    { title: "CLIENTS", value: clientsOf },
    { title: "MAY", value: ({ writable }) => (writable ? "write" : "read") },
    { title: "CONNECTIONS", align: "right", value: ({ connections }) => String(connections) },
    { title: "REFUSED", align: "right", value: ({ refused }) => String(refused) },
    { title: "STATE", value: ({ open: isOpen, why }) => (isOpen ? "open" : `waits: ${why}`) },
  ];
  if (listeners.length === 0) return;
  if (exports.length > 0) print("\n");
  print(formatTable(listeners, ofListeners));
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
