/** After a death: what was acknowledged exists, what was not may exist, and nothing else does. */
import type { Device, SimSnapshot } from "./device.js";
import type { Simulation } from "./simulation.js";
import { Violation } from "./violation.js";

/** What the driver tells of everything. */
export type Status = Awaited<ReturnType<Simulation["driver"]["status"]>>;

export async function reconcile(sim: Simulation): Promise<void> {
  const status = (await sim.machine.run(sim.driver.status())) as Status;
  for (const { front, why } of status.waiting) throw new Violation(`${front} waits: ${why}`);
  for (const { id, taken, resumed } of status.snapshots) {
    const taker = resumed ? "an earlier daemon" : "this daemon";
    if (resumed !== taken) throw new Violation(`${id} counts as one that ${taker} took`);
  }
  reconcileWith(sim, status);
}

/** Nothing is in progress: what was acknowledged exists, and what was not may exist. */
export function reconcileWith(sim: Simulation, status: Status): void {
  sim.growths.assertStatus(status);
  for (const device of sim.devices) reconcileDevice(sim, device, status);
  adopt(sim, status);
  for (const snapshot of [...sim.snapshots]) reconcileSnapshot(sim, snapshot, status);
  for (const device of sim.devices) {
    device.isInHand = false;
    if (device.isToProve) sim.spawn(sim.api.prove(device));
    device.isToProve = false;
  }
}

function reconcileDevice(sim: Simulation, device: Device, status: Status): void {
  const tracker = status.trackers.find(({ device: path }) => path === device.path);
  if (tracker === undefined) {
    if (device.attached === "yes") throw new Violation(`${device.path} is attached no more`);
    device.attached = "no";
    device.front = undefined;
    device.closeUser();
    device.mapLeft();
    // A record may be left that the next boot attaches again.
    if (device.persistent === "yes") device.persistent = "unknown";
    device.mayBeNew = false;
    return;
  }
  // A record left by an interrupted stop is attached again by a later life.
  if (device.attached === "no") {
    if (device.persistent === "no") throw new Violation(`${device.path} is attached`);
    device.attached = "unknown";
  }
  if (!tracker.front_live) throw new Violation(`the front of ${device.path} does not live`);
  const { generation_id: generation } = tracker.cbt;
  const isSame = device.generation === undefined || device.generation === generation;
  // An attach or a detach had begun: it may have been attached anew.
  if (device.attached === "unknown") device.mayBeNew = true;
  reconcilePersistence(sim, device, tracker);
  if (!isSame && !device.mayBeNew && tracker.cbt.capacity_bytes <= device.mapBytes) {
    throw new Violation(`${device.path}: the map begins anew after a kill`);
  }
  device.mayBeNew = false;
  device.noteMap(tracker.cbt);
  device.attached = "yes";
  if (device.front !== tracker.front || device.user === undefined) {
    device.front = tracker.front;
    device.user = sim.machine.user(tracker.front);
  }
}

function reconcilePersistence(
  sim: Simulation,
  device: Device,
  { persistence, cbt }: Status["trackers"][number],
): void {
  const { state, why } = persistence;
  if (state === "failed" && !device.mayHaveFailed)
    throw new Violation(`${device.path}: persistence has failed: ${why}`);
  const isOn = state === "on";
  const mayBe = device.persistent !== "no";
  if (isOn ? !mayBe : device.persistent === "yes") {
    throw new Violation(`${device.path} is ${isOn ? "" : "not "}persistent`);
  }
  const wasOn = device.persistent === "yes";
  if (isOn) {
    device.persistent = "yes";
    device.mayHaveFailed = false;
  }
  if (!device.mayBeNew || !isOn || device.generation === undefined) return;
  const isContinued = cbt.generation_id === device.generation;
  // A later life keeps the kind of the reason, but not its text.
  const reason = cbt.generation_reason;
  if (!isContinued && why === null && reason === "first_attach" && wasOn) {
    throw new Violation(`${device.path}: the map begins a new generation without a reason`);
  }
  sim.tell(
    `${device.path}: the map ${isContinued ? "continues" : `begins anew: ${why ?? reason}`}`,
  );
  sim.count(isContinued ? "continued" : "renewed");
  device.isToProve = isContinued && device.takes.length > 0;
}

/** Snapshots unknown so far: they were being created. */
function adopt(sim: Simulation, status: Status): void {
  for (const { id, devices } of status.snapshots) {
    if (sim.snapshots.some((snapshot) => snapshot.id === id)) continue;
    const paths = devices.map(({ device }) => device);
    const made = sim.snapshots.find(
      (snapshot) =>
        snapshot.id === undefined &&
        snapshot.devices.every(
          (device) => paths.includes(device.path) || sim.deletions.isDropped(device),
        ),
    );
    if (made === undefined) throw new Violation(`a snapshot ${id} of ${paths.join(" ")} is there`);
    made.id = id;
  }
}

function reconcileSnapshot(sim: Simulation, snapshot: SimSnapshot, status: Status): void {
  const found = status.snapshots.find(({ id }) => id === snapshot.id);
  if (found === undefined) {
    // Its losses come from others' writes.
    const mayBeGone = snapshot.devices.every((device) => mayLoseImage(snapshot, device));
    if (snapshot.isGone === "no" && !mayBeGone) {
      throw new Violation(`snapshot ${snapshot.id} is lost`);
    }
    for (const image of snapshot.images.values()) image.user?.close();
    sim.snapshots.splice(sim.snapshots.indexOf(snapshot), 1);
    return;
  }
  snapshot.isGone = "no";
  snapshot.isInHand = false;
  const members = new Set(found.devices.map(({ device }) => device));
  for (const device of [...snapshot.devices]) {
    if (members.has(device.path)) continue;
    if (mayLoseImage(snapshot, device)) {
      snapshot.images.delete(device);
      sim.count("lost");
    } else if (snapshot.added !== device)
      throw new Violation(`${device.path} is in ${found.id} no more`);
    snapshot.devices.splice(snapshot.devices.indexOf(device), 1);
  }
  snapshot.added = undefined;
  if (snapshot.taken !== "unknown" && found.taken !== (snapshot.taken === "yes")) {
    throw new Violation(`snapshot ${found.id} is ${found.taken ? "" : "not "}taken`);
  }
  snapshot.taken = found.taken ? "yes" : "no";
  if (!found.taken) snapshot.images.clear();
  else reopenImages(sim, snapshot, found);
  if (snapshot.mayLoseImages && found.taken) sim.count("kept");
  snapshot.mayLoseImages = false;
}

/** It was not tracked for a while: its image cannot continue. */
function mayLoseImage({ mayLoseImages, mayLose }: SimSnapshot, device: Device): boolean {
  // A snapshot with losses does not survive a power cut.
  return mayLoseImages && (hasEnded(device) || mayLose.size > 0);
}

function hasEnded({ isRenewed, attached }: Device): boolean {
  return isRenewed || attached === "no";
}

function reopenImages(
  sim: Simulation,
  snapshot: SimSnapshot,
  found: Status["snapshots"][number],
): void {
  for (const { device: path, image: imagePath, error_code: errorCode } of found.devices) {
    const image = [...snapshot.images.values()].find(({ device }) => device.path === path);
    if (image === undefined) throw new Violation(`an image of ${path}, which is in no take`);
    if (imagePath === null && mayLoseImage(snapshot, image.device)) {
      snapshot.images.delete(image.device);
      sim.count("lost");
      continue;
    }
    const isWell = errorCode === 0 || snapshot.mayLose.has(-errorCode);
    if (imagePath === null || !isWell) {
      throw new Violation(`the image of ${path} is lost: error ${errorCode}`);
    }
    const { device } = image;
    // Its take may have gone unanswered: its number is not known then.
    if (device.takes.length === 0) device.frozen = undefined;
    if (image.path === imagePath && image.user !== undefined) continue;
    image.path = imagePath;
    image.user = sim.machine.user(imagePath);
    sim.growths.noteImage(image);
  }
  if (!snapshot.isLookedAt) sim.spawn(sim.api.look(snapshot));
}

/** The state of a device whose detach met a medium that did not answer. */
export async function settleDevice(sim: Simulation, device: Device): Promise<void> {
  const status = (await sim.machine.run(sim.driver.status())) as Status;
  reconcileDevice(sim, device, status);
  device.isToProve = false;
  device.isInHand = false;
}
