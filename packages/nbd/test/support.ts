/** Helpers for several tests of this package. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  NbdClient,
  NbdError,
  type NbdErrorCode,
  type NbdExport,
  NbdServer,
  type ServerSettings,
} from "@blksnap/nbd";
import { eventually, nbdOption, u32 } from "@blksnap/testing";
import { type DeviceParams, memoryTarget } from "@blksnap/ublk";
import { SocketReader } from "../dist/socket-reader.js";

export const packageDir = join(import.meta.dirname, "..");
export const MIB: number = 1 << 20;

/** For rejections: an NbdError of this code and errno. */
export async function rejectsWith(
  promise: Promise<unknown>,
  code: NbdErrorCode,
  errno?: number,
): Promise<void> {
  const error = await promise.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  const isRight =
    error instanceof NbdError &&
    error.code === code &&
    (errno === undefined || error.errno === errno);
  if (!isRight) throw new Error(`not ${code}: ${String(error)}`);
}

/** Runs `use` with a folder that is removed afterwards. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "nbd-test-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A disk of 1 MiB without anything special, for targets of tests. */
export const PLAIN_PARAMS: DeviceParams = {
  capacityBytes: MIB,
  logicalBlockBytes: 512,
  physicalBlockBytes: 512,
  ioMinBytes: 512,
  ioOptBytes: 0,
  readOnly: false,
  rotational: false,
  volatileCache: false,
  fua: false,
  discardMaxBytes: 0,
  discardGranularityBytes: 0,
  writeZeroesMaxBytes: 0,
};

/** A RAM disk that is exported as "disk". */
export function ramDisk(capacityBytes: number, more: Partial<NbdExport> = {}): NbdExport {
  return { name: "disk", readOnly: false, target: memoryTarget({ capacityBytes }), ...more };
}

/** Runs `use` with a server, which must report no error, and must end. */
export async function withServer(
  exports: readonly NbdExport[],
  use: (server: NbdServer) => Promise<void>,
  settings: ServerSettings = {},
): Promise<void> {
  await withFolder(async (folder) => {
    const errors: Error[] = [];
    const server = await NbdServer.start({
      socketPath: join(folder, "nbd.sock"),
      exports: [...exports, ramDisk(MIB, { name: "quiet" })],
      settings,
      onError: (error) => errors.push(error),
    });
    try {
      await use(server);
    } finally {
      await server.stop();
    }
    if (errors.length > 0) throw new AggregateError(errors, errors.map(String).join("\n"));
  });
}

/** Another client, which uses its own data and must notice nothing meanwhile. */
export async function undisturbed(
  server: NbdServer,
  meanwhile: () => Promise<void>,
): Promise<void> {
  let client: NbdClient | undefined;
  // The limit for handshakes may be short here.
  await eventually("a connection is taken", async () => {
    client = await NbdClient.connect(server.uri("quiet")).catch(() => undefined);
    return client !== undefined;
  });
  const quiet = client as NbdClient;
  const bytes = Buffer.alloc(MIB, "undisturbed");
  await quiet.write(0, bytes);
  let isOver = false;
  const reading = (async () => {
    while (!isOver) {
      const found = await quiet.read(0, MIB);
      if (Buffer.compare(bytes, found) !== 0) throw new Error("another client read other data");
    }
  })();
  try {
    await Promise.race([meanwhile(), reading]);
  } finally {
    isOver = true;
    await reading;
    await quiet.close();
  }
}

/** A connection that need not obey the protocol. */
export class RawClient {
  readonly socket: Socket;
  readonly reader: SocketReader;
  readonly closed: Promise<void>;

  constructor(socketPath: string) {
    this.socket = connect(socketPath);
    this.reader = new SocketReader(this.socket);
    this.closed = new Promise((resolve) => this.socket.once("close", () => resolve()));
    this.socket.on("error", () => undefined);
  }

  send(...parts: (Buffer | Uint8Array)[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** Receives the greeting, and begins transmission of the named export. */
  async begin(exportName: string, structured: boolean): Promise<void> {
    await this.reader.read(18);
    this.send(u32(3));
    if (structured) {
      this.send(nbdOption(8));
      await this.reader.read(20);
    }
    this.send(nbdOption(1, Buffer.from(exportName)));
    await this.reader.read(10);
  }

  /** The same with extended headers; contexts get their indices as ids. @returns the transmission flags */
  async beginExtended(exportName: string, contexts: readonly string[] = []): Promise<number> {
    await this.reader.read(18);
    this.send(u32(3), nbdOption(11));
    await this.reader.read(20);
    if (contexts.length > 0) {
      const queries = contexts.map(text);
      this.send(nbdOption(10, Buffer.concat([text(exportName), u32(contexts.length), ...queries])));
      for (const name of contexts) await this.reader.read(24 + name.length);
      await this.reader.read(20);
    }
    this.send(nbdOption(7, Buffer.concat([text(exportName), Buffer.alloc(2)])));
    for (let flags = 0; ; ) {
      const header = await this.reader.read(20);
      const data = await this.reader.read(header.readUInt32BE(16));
      if (header.readUInt32BE(12) === 1) return flags;
      if (data.length === 12) flags = data.readUInt16BE(10);
    }
  }

  /** The next reply with extended headers, which must be the only one to its request. */
  async extendedReply(): Promise<ExtendedReply> {
    const header = await this.reader.read(32);
    const payload = await this.reader.read(Number(header.readBigUInt64BE(24)));
    const isOver = header.readUInt32BE(0) === 0x6e8a278c && header.readUInt16BE(4) === 1;
    if (!isOver) throw new Error(`not the end of a reply: ${header.toString("hex")}`);
    const type = header.readUInt16BE(6);
    const error = type === 0x8001 ? payload.readUInt32BE(0) : 0;
    return { type, offset: header.readBigUInt64BE(16), error, payload };
  }

  /** The rest of the server's bytes, until it closes the connection. */
  async untilClosed(): Promise<void> {
    this.socket.on("readable", () => {
      while (this.socket.read() !== null);
    });
    this.socket.read();
    await this.closed;
  }
}

/** Its length, then its bytes. */
export function text(words: string): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(words)), Buffer.from(words)]);
}

export interface ExtendedReply {
  readonly type: number;
  readonly offset: bigint;
  /** 0 where it is none. */
  readonly error: number;
  readonly payload: Buffer;
}

export interface RawRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: bigint;
  readonly offset?: bigint;
  readonly length?: number;
  readonly magic?: number;
}

/** All but the length, which is last. */
function requestHead(
  { type, flags = 0, cookie = 1n, offset = 0n, magic }: Omit<RawRequest, "length">,
  knownMagic: number,
  bytes: number,
): Buffer {
  const head = Buffer.alloc(bytes);
  head.writeUInt32BE(magic ?? knownMagic);
  head.writeUInt16BE(flags, 4);
  head.writeUInt16BE(type, 6);
  head.writeBigUInt64BE(cookie, 8);
  head.writeBigUInt64BE(offset, 16);
  return head;
}

export function request({ length = 0, ...more }: RawRequest): Buffer {
  const bytes = requestHead(more, 0x25609513, 28);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

/** With extended headers: there is a payload where the flags have 0x20. */
export function extendedRequest(
  more: Omit<RawRequest, "length">,
  length: bigint,
  payload: Uint8Array = new Uint8Array(0),
): Buffer {
  const bytes = requestHead(more, 0x21e41c71, 32);
  bytes.writeBigUInt64BE(length, 24);
  return Buffer.concat([bytes, payload]);
}

/** Bytes that are written as hexadecimal numbers, words and "texts". */
export function golden(text: string): Buffer {
  const parts = text.match(/"[^"]*"|[0-9a-f]+/g) ?? [];
  return Buffer.concat(
    parts.map((part) =>
      part.startsWith('"') ? Buffer.from(part.slice(1, -1)) : Buffer.from(part, "hex"),
    ),
  );
}
