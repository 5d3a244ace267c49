/** Tracked devices and snapshots that end with their test. */
import { mkdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
const LIMIT_DEFAULT_BYTES = 1024 * MIB;

/** Attaches the device and answers the path of its front. */
export async function attach(t, device) {
  const { front } = await t.client.attach(device);
  let attached = true;
  async function detach() {
    if (!attached) return;
    attached = false;
    await t.client.detach(device);
  }
  t.defer(detach);
  return { device, front, detach };
}

/** A folder for stores, on tmpfs; it must be empty again at the end of the test. */
export function storeFolder(t, parent = t.folder) {
  const path = join(parent, t.name("store-"));
  mkdirSync(path);
  t.defer(() => rmdirSync(path));
  return path;
}

/**
 * Creates a snapshot of the devices, not taken yet.
 *
 * @param {{stores?: string[], limitBytes?: number}} [options] without stores, a folder on tmpfs
 */
export async function createSnapshot(t, devices, options = {}) {
  const { stores = [storeFolder(t)], limitBytes = LIMIT_DEFAULT_BYTES } = options;
  const { id } = await t.client.snapshotCreate({ devices, stores, limitBytes });
  let exists = true;
  async function destroy() {
    if (!exists) return;
    exists = false;
    await t.client.snapshotDestroy(id);
  }
  t.defer(destroy);
  return { id, destroy };
}

/** Creates and takes a snapshot; `images` are in the order of the devices. */
export async function takeSnapshot(t, devices, options) {
  const { id, destroy } = await createSnapshot(t, devices, options);
  const taken = await t.client.snapshotTake(id);
  const images = devices.map((device) => imageOf(taken, device));
  return { id, destroy, images, stallUs: taken.stall_us };
}

function imageOf(taken, device) {
  const entry = taken.images.find((image) => image.device === device);
  if (!entry) throw new Error(`no image of ${device} in ${JSON.stringify(taken)}`);
  return entry.image;
}

/** Takes, and answers, the events of a snapshot that were not taken yet. */
export async function pendingEvents(t, id) {
  const found = [];
  for (;;) {
    const event = await t.client.waitEvent(id, 0);
    if (event === undefined) return found;
    found.push(event);
  }
}

/** What status tells about one device of a snapshot. */
export async function memberStatus(t, id, device) {
  const { snapshots } = await t.client.status();
  return snapshots
    .find((snapshot) => snapshot.id === id)
    .devices.find((member) => member.device === device);
}
