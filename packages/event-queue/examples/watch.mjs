/** One queue, two kinds of readers: a worker that takes events, a log that sees them all. */
import { EventQueue } from "@blksnap/event-queue";

const queue = new EventQueue({ capacity: 16 });

const log = (async () => {
  for await (const { record, missed } of queue.subscribe()) {
    if (missed > 0) console.log(`log: missed ${missed}`);
    console.log(`log: ${record.sequence} ${record.event.type}`);
  }
  console.log("log: end");
})();

queue.push({ type: "low_free_space", freeBytes: 4096 });
queue.push({ type: "corrupted", device: "8:1" });

const taken = await queue.wait(1000);
if (taken.kind === "event") console.log(`worker: ${taken.record.event.type}`);

// Changing from taking to following: continue behind the last event taken.
const rest = queue.subscribe({ fromSequence: taken.record.sequence + 1 });
console.log(`worker follows: ${(await rest.next()).value.record.event.type}`);

while ((await queue.wait(0)).kind === "event");
console.log(`nothing more within 20 ms: ${(await queue.wait(20)).kind}`);
queue.close();
console.log(`after close: ${(await queue.wait()).kind}`);
await log;
