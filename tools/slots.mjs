/**
 * Slots for what takes a processor each: steps of `npm test`, and the test files of all packages, wait for one and for
 * nothing else, so that processors are busy to the end. There is one slot more than processors: a step waits for its own
 * timers, disks and children for about a quarter of its time (two CPUs: 196 s of a run in place of 247 s).
 *
 * A slot is a connection: who holds it ends it, or dies. They are given in the order in which they were asked for.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";

export const SLOT_COUNT = availableParallelism() + 1;

/** Where processes that were started find the slots. */
export const SLOTS_VARIABLE = "BLKSNAP_TEST_SLOTS";
/** Set where the tests of all packages have been compiled before those of one are run. */
export const COMPILED_VARIABLE = "BLKSNAP_TESTS_COMPILED";

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
    // Its end is seen by reading.
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
 * Waits for a slot, and answers what gives it back. Where no server runs there is one at once.
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
