/** Compares the daemon's resources in the system with its status: nothing missing, nothing left over. */
import { existsSync, readdirSync } from "node:fs";
import { basename } from "node:path";
import { until } from "./wait.mjs";

const STATE_FOLDER = "/run/blksnap/state";
const LINKS_FOLDER = "/dev/blksnap";
const SETTLE_LIMIT_MS = 300_000;

function list(folder) {
  return existsSync(folder) ? readdirSync(folder) : [];
}

function linksBelow(folder) {
  if (!existsSync(folder)) return 0;
  const all = readdirSync(folder, { recursive: true, withFileTypes: true });
  return all.filter((entry) => entry.isSymbolicLink()).length;
}

/** Differences between status and the system, each with a name. */
function differences({ trackers, snapshots }) {
  const members = snapshots.flatMap(({ devices }) => devices);
  const images = members.map(({ image }) => image).filter((image) => image !== null);
  const devices = [...trackers.map(({ front }) => front), ...images].map((path) => basename(path));
  const files = list(STATE_FOLDER);
  const count = (pattern) => files.filter((name) => pattern.test(name)).length;
  const isThere = list("/dev").filter((name) => /^ublkb\d+$/.test(name));
  const known = list("/sys/class/ublk-char").map((name) => name.replace("ublkc", "ublkb"));
  const unequal = (what, actual, expected) => {
    const [is, should] = [actual, expected].map((names) => [...names].sort().join(" "));
    return is === should ? [] : [`${what}: ${is || "none"} instead of ${should || "none"}`];
  };
  return [
    ...unequal("block devices", isThere, devices),
    ...unequal("ublk devices", known, devices),
    // A short one, and one in a place of its own.
    ...unequal("links", [linksBelow(LINKS_FOLDER)], [2 * devices.length]),
    ...unequal("tracker records", [count(/^tracker-\d+\.record$/)], [trackers.length]),
    ...unequal("CBT maps", [count(/^cbt-\d+$/)], [trackers.length]),
    ...unequal("snapshot records", [count(/^snapshot-.*\.record$/)], [snapshots.length]),
    ...unequal("area maps", [count(/^area-/)], [images.length]),
    ...unequal("unfinished records", [count(/\.record\.new$/)], [0]),
  ];
}

/** Fails unless they agree soon: the kernel ends some things only after the last close. */
export async function assertInventory(t) {
  let found = [];
  const isTrue = async () => {
    found = differences(await t.client.status());
    return found.length === 0;
  };
  try {
    await until("the inventory is right", isTrue, SETTLE_LIMIT_MS);
  } catch (cause) {
    if (found.length === 0) throw cause;
    throw new Error(`left behind or missing:\n  ${found.join("\n  ")}`, { cause });
  }
}
