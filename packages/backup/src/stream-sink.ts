/** The target of a stream: a descriptor from the caller. */
import { fstatSync, fsync, write } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { promisify } from "node:util";
import { errnoNameOf } from "@blksnap/errors";
import { BackupError, targetError } from "./errors.js";

export interface StreamSink {
  /** One at a time. `data` may be reused when this has resolved. @throws BackupError TARGET_FULL, TARGET_FAILED */
  write(data: Uint8Array): Promise<void>;
  /** Makes everything durable, if there is a medium. */
  end(): Promise<void>;
}

const RETRY_MS = 5;
const WHAT = "the stream";

export interface DescriptorSink extends StreamSink {
  /** The last write is still pending, and occupies a thread of this process. */
  readonly isWriting: boolean;
}

const writeTo = promisify(write);

/** Number of bytes written; none if there is no space yet. */
async function writeSome(fd: number, data: Uint8Array): Promise<number> {
  try {
    return (await writeTo(fd, data)).bytesWritten;
  } catch (error) {
    const name = errnoNameOf(error);
    if (name === "EPIPE") {
      const hint = "See the messages of the program that reads it";
      throw new BackupError("TARGET_FAILED", "the stream's reader has ended", { hint });
    }
    if (name !== "EAGAIN") throw targetError("write", WHAT, error);
    // A full pipe that others have made non-blocking.
    await setTimeout(RETRY_MS);
    return 0;
  }
}

/** @param fd pipe, socket or file, which stays open */
export function descriptorSink(fd: number): DescriptorSink {
  let isWriting = false;
  return {
    get isWriting() {
      return isWriting;
    },
    async write(data) {
      isWriting = true;
      try {
        for (let done = 0; done < data.length; ) {
          done += await writeSome(fd, data.subarray(done));
        }
      } finally {
        isWriting = false;
      }
    },
    async end() {
      try {
        const stats = fstatSync(fd);
        if (stats.isFile() || stats.isBlockDevice()) await promisify(fsync)(fd);
      } catch (error) {
        throw targetError("write", WHAT, error);
      }
    },
  };
}
