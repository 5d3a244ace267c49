/**
 * Preloaded into the daemons of a test (`node --import`): makes one die at a fault point.
 *
 * The file in $E2E_FAULT_FILE holds a fault point per line. The thread that reaches the first one removes its line
 * and ends its process; the next daemon meets the next line. After `throws ` the next step fails instead; after
 * `stops ` the process stops there until it is continued.
 */
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";

/** Often enough for a test, and rare enough for the data path. */
const LOOK_INTERVAL_MS = 20;

const path = process.env.E2E_FAULT_FILE;
let lookedMs = Number.NEGATIVE_INFINITY;
let armed = [];

function look() {
  const nowMs = performance.now();
  if (nowMs - lookedMs < LOOK_INTERVAL_MS) return;
  lookedMs = nowMs;
  armed = existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : [];
}

globalThis[Symbol.for("blksnap.fault-point")] = (point) => {
  look();
  const [next = ""] = armed;
  const [how, name] = next.includes(" ") ? next.split(" ") : ["dies", next];
  if (name !== point) return;
  try {
    // Two threads may get here: only one can create this file.
    closeSync(openSync(`${path}.${armed.length}`, "wx"));
  } catch {
    return;
  }
  if (armed.length === 1) unlinkSync(path);
  else {
    writeFileSync(`${path}.new`, armed.slice(1).join("\n"));
    renameSync(`${path}.new`, path);
  }
  if (how === "throws") throw new Error(`the step after ${point} fails`);
  process.kill(process.pid, how === "stops" ? "SIGSTOP" : "SIGKILL");
};
