/**
 * Loaded into the daemon's threads by NODE_OPTIONS: the first image ends while one of its requests is pending. In the
 * folder in E2E_HOLD_IMAGE_END
 *
 *   held   is created when only the image's end is left to do: from here on reactors submit nothing go     starts the
 *   image's end: the test creates it when its request is in flight
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import threads from "node:worker_threads";

const BEFORE_IMAGE_END = "destroy.area-dropped";
const LOOK_INTERVAL_MS = 20;

const folder = process.env.E2E_HOLD_IMAGE_END;
const [held, go] = folder ? [join(folder, "held"), join(folder, "go")] : [];
const never = new Int32Array(new SharedArrayBuffer(4));

function sleepUntil(isOver) {
  while (!isOver()) Atomics.wait(never, 0, 0, LOOK_INTERVAL_MS);
}

/** A reactor submits through the addon's enter() alone. */
function holdSubmissions() {
  const load = process.dlopen;
  process.dlopen = (module, ...rest) => {
    load.call(process, module, ...rest);
    const { enter } = module.exports;
    if (enter === undefined) return;
    module.exports.enter = (...words) => {
      sleepUntil(() => !existsSync(held));
      return enter(...words);
    };
  };
}

if (folder && threads.isMainThread) {
  globalThis[Symbol.for("blksnap.fault-point")] = (point) => {
    if (point !== BEFORE_IMAGE_END) return;
    writeFileSync(held, "");
    sleepUntil(() => existsSync(go));
  };
} else if (folder) {
  holdSubmissions();
}
