/** Fakes of a driver and a daemon, for tests of clients. */
export { type FakeDaemon, startFakeDaemon } from "./fake-daemon.js";
export { FakeDriver } from "./fake-driver.js";
export { FakeEventLog } from "./fake-event-log.js";
