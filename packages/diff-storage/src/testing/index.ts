export { ManualClock, settle } from "./clock.js";
export { type FakeOutcome, FakeStore, type FakeStoreOptions } from "./fake-store.js";
