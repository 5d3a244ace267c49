/**
 * A disk with a volatile write cache, served to a VM over NBD. It records every write. At a power cut flushed data
 * stays; of the rest any sector may survive or not, in any order.
 */
import { rmSync } from "node:fs";
import { createServer } from "node:net";

const SECTOR_BYTES = 512;
const OPTION_MAGIC = 0x49484156454f5054n;
const REPLY_MAGIC = 0x3e889045565a9n;
const REQUEST_BYTES = 28;
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
const FIXED_NEWSTYLE_NO_ZEROES = 3;
/** HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES */
const EXPORT_FLAGS = 1 | 4 | 8 | 32 | 64;
const Option = { ABORT: 2, GO: 7 };
const Reply = { ACK: 1, INFO: 3, UNSUPPORTED: 0x80000001 };
const Command = { READ: 0, WRITE: 1, DISCONNECT: 2, FLUSH: 3, TRIM: 4, WRITE_ZEROES: 6 };
const FUA = 1;

export class PowerDisk {
  socketPath;
  serial;
  /** What a reader sees. */
  bytes;
  /** Called with offset and length of all that changes the disk. */
  onWrite = () => {};
  #durable;
  /** Writes that no flush has covered, in order. */
  #cached = [];
  #server;
  #connections = new Set();

  constructor(socketPath, lengthBytes, serial) {
    this.socketPath = socketPath;
    this.serial = serial;
    this.bytes = Buffer.alloc(lengthBytes);
    this.#durable = Buffer.alloc(lengthBytes);
  }

  /** As runInVm wants it. */
  get drive() {
    return { nbdSocket: this.socketPath, serial: this.serial };
  }

  listen() {
    rmSync(this.socketPath, { force: true });
    this.#server = createServer((socket) => {
      this.#connections.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => this.#connections.delete(socket));
      this.#greet(socket);
    });
    return new Promise((done) => this.#server.listen(this.socketPath, done));
  }

  close() {
    for (const socket of this.#connections) socket.destroy();
    return new Promise((done) => this.#server.close(done));
  }

  /**
   * Answers nothing from now on; what was not flushed is kept or lost at random.
   * @returns {number} sectors that were lost
   */
  cutPower(random) {
    for (const socket of this.#connections) socket.destroy();
    const keepOf4 = random.below(5);
    let lost = 0;
    for (const { offset, data } of this.#cached.splice(0)) {
      for (let at = 0; at < data.length; at += SECTOR_BYTES) {
        if (random.below(4) >= keepOf4) lost++;
        else data.copy(this.#durable, offset + at, at, at + SECTOR_BYTES);
      }
    }
    this.#durable.copy(this.bytes);
    return lost;
  }

  #greet(socket) {
    const hello = Buffer.alloc(18);
    hello.write("NBDMAGIC", 0, "latin1");
    hello.writeBigUInt64BE(OPTION_MAGIC, 8);
    hello.writeUInt16BE(FIXED_NEWSTYLE_NO_ZEROES, 16);
    socket.write(hello);
    let received = Buffer.alloc(0);
    let greeted = false;
    let serving = false;
    socket.on("data", (chunk) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      for (;;) {
        let used = 0;
        if (!greeted) {
          used = received.length < 4 ? 0 : 4;
          greeted = used > 0;
        } else if (!serving) {
          const option = this.#negotiate(socket, received);
          used = option.used;
          serving = option.serving;
        } else used = this.#serve(socket, received);
        if (used === 0) return;
        received = received.subarray(used);
      }
    });
  }

  /** One option. */
  #negotiate(socket, bytes) {
    if (bytes.length < 16) return { used: 0, serving: false };
    const option = bytes.readUInt32BE(8);
    const used = 16 + bytes.readUInt32BE(12);
    if (bytes.length < used) return { used: 0, serving: false };
    if (option === Option.GO) {
      const info = Buffer.alloc(12);
      info.writeBigUInt64BE(BigInt(this.bytes.length), 2);
      info.writeUInt16BE(EXPORT_FLAGS, 10);
      answerOption(socket, option, Reply.INFO, info);
      answerOption(socket, option, Reply.ACK);
      return { used, serving: true };
    }
    answerOption(socket, option, option === Option.ABORT ? Reply.ACK : Reply.UNSUPPORTED);
    return { used, serving: false };
  }

  /** One request. @returns {number} bytes used; 0: it is not all there */
  #serve(socket, bytes) {
    if (bytes.length < REQUEST_BYTES) return 0;
    if (bytes.readUInt32BE(0) !== REQUEST_MAGIC) throw new Error("no request of NBD");
    const flags = bytes.readUInt16BE(4);
    const command = bytes.readUInt16BE(6);
    const offset = Number(bytes.readBigUInt64BE(16));
    const length = bytes.readUInt32BE(24);
    const used = REQUEST_BYTES + (command === Command.WRITE ? length : 0);
    if (bytes.length < used) return 0;
    let data;
    if (command === Command.READ) data = Buffer.from(this.bytes.subarray(offset, offset + length));
    else if (command === Command.WRITE) {
      this.#write(offset, Buffer.from(bytes.subarray(REQUEST_BYTES, used)));
    } else if (command === Command.TRIM || command === Command.WRITE_ZEROES) {
      this.#write(offset, Buffer.alloc(length));
    }
    if (command === Command.FLUSH || (flags & FUA) !== 0) this.#flush();
    if (command === Command.DISCONNECT) socket.end();
    else answerRequest(socket, bytes.subarray(8, 16), data);
    return used;
  }

  #write(offset, data) {
    this.onWrite(offset, data.length);
    data.copy(this.bytes, offset);
    this.#cached.push({ offset, data });
  }

  #flush() {
    for (const { offset, data } of this.#cached.splice(0)) data.copy(this.#durable, offset);
  }
}

function answerOption(socket, option, reply, data = Buffer.alloc(0)) {
  const head = Buffer.alloc(20);
  head.writeBigUInt64BE(REPLY_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(reply, 12);
  head.writeUInt32BE(data.length, 16);
  socket.write(Buffer.concat([head, data]));
}

function answerRequest(socket, cookie, data) {
  const head = Buffer.alloc(16);
  head.writeUInt32BE(SIMPLE_REPLY_MAGIC, 0);
  cookie.copy(head, 8);
  socket.write(data === undefined ? head : Buffer.concat([head, data]));
}
