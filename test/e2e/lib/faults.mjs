/** Daemons that die or stop at named points of the driver. */
import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { until } from "./wait.mjs";

const HOOK = fileURLToPath(new URL("fault-hook.mjs", import.meta.url));
/** Longer than the hook caches the file. */
const SEEN_MS = 60;
const DEATH_LIMIT_MS = 300_000;

export class Faults {
  #path;

  constructor(t) {
    this.#path = join(t.folder, "fault-points");
    t.defer(() => this.#forget());
  }

  #forget() {
    for (const suffix of ["", ".new", ".1", ".2", ".3"]) {
      rmSync(this.#path + suffix, { force: true });
    }
  }

  /** Environment variables for a daemon. */
  get environment() {
    return { E2E_FAULT_FILE: this.#path, NODE_OPTIONS: `--import=${HOOK}` };
  }

  /** Has the daemons that come next die at these points, one after the other; fault-hook.mjs says what else they can do. */
  async arm(...points) {
    this.#forget();
    writeFileSync(`${this.#path}.new`, points.join("\n"));
    renameSync(`${this.#path}.new`, this.#path);
    await sleep(SEEN_MS);
  }

  /** Resolves when all points were met. */
  met() {
    return until(
      "the daemon dies at its fault point",
      () => !existsSync(this.#path),
      DEATH_LIMIT_MS,
    );
  }
}
