/** Reads an image: by its block device, its export over NBD, or any other source of its bytes. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { ByteRange } from "@blksnap/api";
import { messageOf } from "@blksnap/errors";
import { AllocationFlag, BASE_ALLOCATION, NbdClient, TransmissionFlag } from "@blksnap/nbd";
import { BackupError } from "./errors.js";

export interface ImageReader {
  /** Fills `data` from this offset on. Reads may be concurrent. @throws BackupError IMAGE_FAILED */
  read(data: Uint8Array, offsetBytes: number): Promise<void>;
  /** Flushes foreign writes from the page cache to the image, where they are counted. @throws as read() */
  sync(): Promise<void>;
  /** Known ranges that were never written and read as zeros, in order. */
  emptyRanges(): Promise<readonly ByteRange[]>;
  /** A second call does nothing. */
  close(): Promise<void>;
}

const NBD = "nbd+unix:";
const CONNECTIONS_MAX = 4;
const PROOF_BYTES = 4096;

/**
 * Reads a block device, a file, or `nbd+unix:///EXPORT?socket=PATH`.
 * @param exported address of the image's export, which knows holes; null: none
 * @throws BackupError IMAGE_FAILED
 */
export async function openImage(
  image: string,
  exported: string | null = null,
): Promise<ImageReader> {
  const failed = (why: string, cause?: unknown): BackupError =>
    new BackupError("IMAGE_FAILED", `can't read the image ${image}: ${why}`, { cause });
  return image.startsWith(NBD) ? openExport(image, failed) : openFile(image, exported, failed);
}

type Failed = (why: string, cause?: unknown) => BackupError;

async function openFile(
  path: string,
  exported: string | null,
  failed: Failed,
): Promise<ImageReader> {
  const file = await open(path, constants.O_RDONLY).catch((error: unknown) => {
    throw failed(messageOf(error), error);
  });
  return {
    async read(data, offsetBytes) {
      for (let done = 0; done < data.length; ) {
        const at = offsetBytes + done;
        const { bytesRead } = await file
          .read(data, done, data.length - done, at)
          .catch((error: unknown) => {
            throw failed(`${messageOf(error)} at byte ${at}`, error);
          });
        if (bytesRead === 0) throw failed(`it ends at byte ${at}`);
        done += bytesRead;
      }
    },
    async sync() {
      await file.sync().catch((error: unknown) => {
        throw failed(messageOf(error), error);
      });
    },
    emptyRanges: () => (exported === null ? Promise.resolve([]) : emptyRangesAt(exported)),
    close: () => file.close(),
  };
}

/**
 * An export over several connections, which are opened one by one as long as all are busy: a socket buffers a
 * fraction of a read, and each time it is full or empty one side waits for the other to be scheduled.
 */
class ManyConnections {
  readonly #uri: string;
  readonly #clients: NbdClient[];
  /** Reads in flight, by connection. */
  readonly #loads: number[] = [0];
  #connecting: Promise<void> | undefined;
  #isEnough: boolean;

  constructor(uri: string, first: NbdClient) {
    this.#uri = uri;
    this.#clients = [first];
    this.#isEnough = (first.export.flags & TransmissionFlag.CAN_MULTI_CONN) === 0;
  }

  /** @throws NbdError as NbdClient.readInto() */
  async read(data: Uint8Array, offsetBytes: number): Promise<void> {
    const index = this.#loads.indexOf(Math.min(...this.#loads));
    if (this.#loads[index]! > 0) this.#connectOneMore();
    this.#loads[index]!++;
    try {
      await this.#clients[index]!.readInto(offsetBytes, data);
    } finally {
      this.#loads[index]!--;
    }
  }

  async close(): Promise<void> {
    await this.#connecting;
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  #connectOneMore(): void {
    if (this.#isEnough || this.#connecting !== undefined) return;
    this.#connecting = this.#connect().finally(() => {
      this.#connecting = undefined;
    });
  }

  async #connect(): Promise<void> {
    try {
      this.#clients.push(await connectionThatAnswers(this.#uri));
      this.#loads.push(0);
      this.#isEnough = this.#clients.length === CONNECTIONS_MAX;
    } catch {
      // The server accepts no more: the existing ones are enough.
      this.#isEnough = true;
    }
  }
}

/** A server at its limit may close one after the handshake: only a reply proves it. */
async function connectionThatAnswers(uri: string): Promise<NbdClient> {
  const client = await NbdClient.connect(uri);
  try {
    await client.readInto(0, new Uint8Array(Math.min(PROOF_BYTES, client.export.sizeBytes)));
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

async function openExport(uri: string, failed: Failed): Promise<ImageReader> {
  const client = await NbdClient.connect(uri).catch((error: unknown) => {
    throw failed(messageOf(error), error);
  });
  const pieceBytes = client.export.maxPayloadBytes;
  const connections = new ManyConnections(uri, client);
  return {
    async read(data, offsetBytes) {
      for (let done = 0; done < data.length; done += pieceBytes) {
        const at = offsetBytes + done;
        await connections
          .read(data.subarray(done, done + pieceBytes), at)
          .catch((error: unknown) => {
            throw failed(`${messageOf(error)} at byte ${at}`, error);
          });
      }
    },
    // Writes in the caches of the server's other clients are not in what is read here.
    sync: () => Promise.resolve(),
    emptyRanges: () => emptyRangesAt(uri),
    close: () => connections.close(),
  };
}

/** Over a separate connection, whose failure only costs the knowledge of holes. */
async function emptyRangesAt(uri: string): Promise<readonly ByteRange[]> {
  try {
    const client = await NbdClient.connect(uri, { contexts: [BASE_ALLOCATION] });
    try {
      return await emptyRangesOf(client);
    } finally {
      await client.close();
    }
  } catch {
    return [];
  }
}

/** @param client with base:allocation selected @throws NbdError */
export async function emptyRangesOf(client: NbdClient): Promise<readonly ByteRange[]> {
  const empty: ByteRange[] = [];
  for await (const { offsetBytes, lengthBytes, flags } of client.extents(BASE_ALLOCATION)) {
    if ((flags & AllocationFlag.ZERO) === 0) continue;
    empty.push({ offset_bytes: offsetBytes, length_bytes: lengthBytes });
  }
  return empty;
}
