export { EventQueueError, type EventQueueErrorCode } from "./errors.js";
export { type Follower, PENDING_NEXT_MAX } from "./follower.js";
export {
  DEFAULT_CAPACITY,
  EventQueue,
  type EventQueueOptions,
  type EventSink,
  READERS_MAX,
  type SubscribeOptions,
  type WaitResult,
} from "./queue.js";
export type { Delivery, EventRecord } from "./ring.js";
