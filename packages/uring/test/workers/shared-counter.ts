/** Adds to a counter in a memory file that the main thread has mapped too. */
import { workerData } from "node:worker_threads";
import { MappedMemory, PAGE_BYTES } from "@blksnap/uring";

const { fd, additions } = workerData as { fd: number; additions: number };
const memory = MappedMemory.file(fd, 0, PAGE_BYTES);
const counter = new Int32Array(memory.buffer);
for (let i = 0; i < additions; i++) Atomics.add(counter, 0, 1);
memory.unmap();
