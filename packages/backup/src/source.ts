/** What an image is read through: its block device, its export over NBD, or anything else that has its bytes. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { messageOf } from "@blksnap/errors";
import { NbdClient } from "@blksnap/nbd";
import { BackupError } from "./errors.js";

export interface ImageReader {
  /** Fills `data` from this place on. Many reads may be under way. @throws BackupError IMAGE_FAILED */
  read(data: Uint8Array, offsetBytes: number): Promise<void>;
  /** Has writes of others that only the page cache has reach the image, where they are counted. @throws as read() */
  sync(): Promise<void>;
  close(): Promise<void>;
}

const NBD = "nbd+unix:";

/** Reads a block device, a file, or `nbd+unix:///EXPORT?socket=PATH`. @throws BackupError IMAGE_FAILED */
export async function openImage(image: string): Promise<ImageReader> {
  const failed = (why: string, cause?: unknown): BackupError =>
    new BackupError("IMAGE_FAILED", `can't read the image ${image}: ${why}`, { cause });
  return image.startsWith(NBD) ? openExport(image, failed) : openFile(image, failed);
}

type Failed = (why: string, cause?: unknown) => BackupError;

async function openFile(path: string, failed: Failed): Promise<ImageReader> {
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

async function openExport(uri: string, failed: Failed): Promise<ImageReader> {
  const client = await NbdClient.connect(uri).catch((error: unknown) => {
    throw failed(messageOf(error), error);
  });
  const pieceBytes = client.export.maxPayloadBytes;
  return {
    async read(data, offsetBytes) {
      for (let done = 0; done < data.length; done += pieceBytes) {
        const at = offsetBytes + done;
        await client
          .readInto(at, data.subarray(done, done + pieceBytes))
          .catch((error: unknown) => {
            throw failed(`${messageOf(error)} at byte ${at}`, error);
          });
      }
    },
    // Writes of its other clients that a cache of theirs has are in nothing that is read here.
    sync: () => Promise.resolve(),
    close: () => client.close(),
  };
}
