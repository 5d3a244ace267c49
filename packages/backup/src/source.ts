/** What an image is read through: its block device, or anything else that has its bytes. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { messageOf } from "@blksnap/errors";
import { BackupError } from "./errors.js";

export interface ImageReader {
  /** Fills `data` from this place on. Many reads may be under way. @throws BackupError IMAGE_FAILED */
  read(data: Uint8Array, offsetBytes: number): Promise<void>;
  /** Has writes of others that only the page cache has reach the image, where they are counted. @throws as read() */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** Reads a block device, or a file. */
export async function openImage(path: string): Promise<ImageReader> {
  const failed = (why: string, cause?: unknown): BackupError =>
    new BackupError("IMAGE_FAILED", `can't read the image ${path}: ${why}`, { cause });
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
    close: () => file.close(),
  };
}
