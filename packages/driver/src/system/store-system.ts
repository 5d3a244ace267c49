import { faultPoint } from "@blksnap/data-plane";
import type { StoreSystem } from "@blksnap/diff-storage";
import { ETIMEDOUT, errnoName } from "@blksnap/errors";
import {
  createMemoryFile,
  directIoAlignment,
  endDirectIo,
  ioctl,
  openInHelper,
  type PromiseRing,
  prepareFallocate,
  tryLockFile,
} from "@blksnap/uring";
import { STORE_OPEN_TIMEOUT_MS } from "../time-limits.js";

const BLKGETSIZE64 = 0x80081272;

function failure(status: number, what: string): Error {
  const code = errnoName(status);
  return Object.assign(new Error(`${code}: ${what}`), { code, errno: status });
}

/** The system calls that the diff storage needs, on the main thread's ring. */
export function ringStoreSystem(ring: PromiseRing): StoreSystem {
  return {
    async fallocate(fd, mode, offsetBytes, lengthBytes) {
      faultPoint("growth.begun");
      const status = await ring.submit((target, low, high) =>
        prepareFallocate(
          target,
          fd,
          mode,
          offsetBytes | 0,
          (offsetBytes / 2 ** 32) | 0,
          lengthBytes | 0,
          (lengthBytes / 2 ** 32) | 0,
          low,
          high,
          0,
        ),
      );
      faultPoint("growth.allocated");
      if (status < 0) throw failure(status, `fallocate of ${lengthBytes} bytes`);
    },
    blockDeviceSizeBytes(fd) {
      const size = new BigUint64Array(1);
      ioctl(fd, BLKGETSIZE64, size);
      return Number(size[0]);
    },
    createMemoryFile,
    async assertAnswers(path) {
      const status = await openInHelper(path, STORE_OPEN_TIMEOUT_MS);
      if (status === -ETIMEDOUT) throw failure(status, `no answer in ${STORE_OPEN_TIMEOUT_MS} ms`);
    },
    statDirectIo: directIoAlignment,
    endDirectIo,
    lockFile(fd) {
      if (!tryLockFile(fd)) throw failure(-11, "the file is locked by another program");
    },
  };
}
