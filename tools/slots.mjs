/**
 * Slots for CPU-bound work: steps of `npm test`, and the test files of all packages, wait only for a slot, so that
 * processors are busy to the end. There is one slot more than processors, because a step waits for timers, disks and
 * children for about a quarter of its time (two CPUs: 196 s for a run instead of 247 s).
 *
 * A slot is a connection: its holder closes it, or dies. Slots are assigned in the order of requests.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";

export const SLOT_COUNT = availableParallelism() + 1;

/** Where child processes find the slots. */
export const SLOTS_VARIABLE = "BLKSNAP_TEST_SLOTS";
/** Set where everything is built, bundles too, and the tests of all packages are compiled, before those of one are run. */
export const BUILT_VARIABLE = "BLKSNAP_TESTS_BUILT";

/**
 * Serves slots, at a path that other processes reach too.
 * @param {number} count how many are held at a time
 */
export async function openSlots(count) {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-slots-"));
  const path = join(folder, "socket");
  const waiting = [];
  let free = count;
  const serveWaiting = () => {
    while (free > 0 && waiting.length > 0) {
      free--;
      const socket = waiting.shift();
      socket.isHolder = true;
      socket.write("1");
    }
  };
  const server = createServer((socket) => {
    waiting.push(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (socket.isHolder) free++;
      else waiting.splice(waiting.indexOf(socket), 1);
      serveWaiting();
    });
    // Reading notices its end.
    socket.resume();
    serveWaiting();
  });
  await new Promise((done) => server.listen(path, done));
  const close = () => {
    server.close();
    rmSync(folder, { recursive: true });
  };
  return { path, close };
}

/**
 * Waits for a slot, and returns a function that releases it. Without a server it returns at once.
 * @param {string | undefined} path that of openSlots
 */
export function acquireSlot(path) {
  if (path === undefined) return Promise.resolve(() => undefined);
  return new Promise((done, fail) => {
    const socket = connect(path);
    socket.once("error", fail);
    socket.once("close", () => fail(new Error(`slots: their server has ended at ${path}`)));
    socket.once("data", () => done(() => socket.destroy()));
  });
}
