/**
 * The ublk driver for a reactor on a real ring: one request at a time, and the test gives the requests. It counts the
 * reactor's requests to the kernel.
 */
import { DriverStandIn, type RequestSource } from "@blksnap/ublk";
import { Opcode, type Reactor, type Ring } from "@blksnap/uring";
import { native } from "../../uring/dist/native.js";

/** Reads and writes of unregistered memory. */
const READ = 22;
const WRITE = 23;
const { READ_FIXED, WRITE_FIXED } = Opcode;
const LENGTH_WORD = 6;
const SECTOR_BYTES = 512;

export interface UserRequest {
  readonly op: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** The reactor's requests to the kernel. */
export interface Work {
  enters: number;
  entries: number;
  /** Lengths of all reads and writes. */
  bytes: number;
  /** Entries whose memory the kernel has to look up and pin. */
  lookups: number;
}

/** Requests of users, one after the other. */
class Users implements RequestSource {
  readonly results: number[] = [];
  readonly #requests: UserRequest[];
  #sent = 0;

  constructor(requests: readonly UserRequest[]) {
    this.#requests = [...requests];
  }

  next(descriptor: Int32Array, result: number): boolean {
    if (this.#sent > 0) this.results.push(result);
    const request = this.#requests[this.#sent];
    if (request === undefined) return false;
    this.#sent++;
    const { op, offsetBytes, lengthBytes } = request;
    descriptor.fill(0);
    descriptor.set([op, lengthBytes / SECTOR_BYTES, offsetBytes / SECTOR_BYTES]);
    return true;
  }
}

export class FakeUblk {
  readonly #driver = new DriverStandIn();
  readonly #enter = native.enter;
  readonly #work: Work = { enters: 0, entries: 0, bytes: 0, lookups: 0 };
  #reactor: Reactor | undefined;

  constructor() {
    native.enter = (fd, toSubmit, minComplete, flags) => {
      this.#work.enters++;
      this.#work.entries += toSubmit;
      const status = this.#enter(fd, toSubmit, minComplete, flags);
      // The kernel has read these entries: they are not counted again.
      if (status === toSubmit) this.#reactor?.ring.sqes32.fill(0);
      return status;
    };
  }

  /** For the reactor's ring. */
  readonly beforeEnter = (ring: Ring): void => {
    this.#driver.beforeEnter(ring);
    this.#countTransfers(ring);
  };

  use(reactor: Reactor): void {
    this.#reactor = reactor;
    this.#driver.use(reactor);
  }

  /** A character device, for makeQueue(). */
  addDevice(depth: number, maxIoBytes: number): number {
    return this.#driver.addDevice(depth, maxIoBytes);
  }

  /** Sends these requests one after the other. Returns the reactor's work for them, and the results. */
  run(charFd: number, requests: readonly UserRequest[]): Work & { results: number[] } {
    this.#turnUntilIdle(charFd);
    const { enters, entries, bytes, lookups } = this.#work;
    const users = new Users(requests);
    this.#driver.serve(charFd, users);
    this.#turnUntilIdle(charFd);
    const work = this.#work;
    return {
      enters: work.enters - enters,
      entries: work.entries - entries,
      bytes: work.bytes - bytes,
      lookups: work.lookups - lookups,
      results: users.results,
    };
  }

  close(): void {
    native.enter = this.#enter;
    this.#driver.close();
  }

  #turnUntilIdle(charFd: number): void {
    while (this.#driver.idleTags(charFd) === 0) this.#reactor?.turn();
  }

  #countTransfers({ sqes32: words, sqEntries, sqeWords }: Ring): void {
    for (let sqe = 0; sqe < sqEntries * sqeWords; sqe += sqeWords) {
      const opcode = words[sqe] & 0xff;
      const isLookedUp = opcode === READ || opcode === WRITE;
      if (isLookedUp) this.#work.lookups++;
      if (isLookedUp || opcode === READ_FIXED || opcode === WRITE_FIXED)
        this.#work.bytes += words[sqe + LENGTH_WORD];
    }
  }
}
