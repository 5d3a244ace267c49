export type { WaitResult } from "./consumer.js";
export { EventQueueError, type EventQueueErrorCode } from "./errors.js";
export { type Follower, PENDING_NEXT_MAX } from "./follower.js";
export { KeptEventQueue, type KeptQueueOptions } from "./kept-queue.js";
export {
  DEFAULT_CAPACITY,
  DEFAULT_READER,
  EventQueue,
  type EventQueueOptions,
  type EventSink,
  READER_NAMES_MAX,
  READERS_MAX,
  type SubscribeOptions,
} from "./queue.js";
export type { Delivery, EventRecord } from "./ring.js";
