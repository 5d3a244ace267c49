import { faultPoint } from "@blksnap/data-plane";
import type { StoreSystem } from "@blksnap/diff-storage";
import { EIO, ETIMEDOUT, errnoName } from "@blksnap/errors";
import {
  createMemoryFile,
  directIoAlignment,
  endDirectIo,
  high32,
  ioctl,
  low32,
  MappedMemory,
  openInHelper,
  type PromiseRing,
  prepareFallocate,
  prepareWrite,
  prepareWritebackError,
  type Ring,
  RwFlag,
  SqeFlag,
  tryLockFileAsync,
} from "@blksnap/uring";
import { STORE_OPEN_TIMEOUT_MS } from "../time-limits.js";

/**
 * Errors by which the kernel says that it was not asked. Any other error is the one with which writes were lost: of a
 * disk's medium, its transport or its driver, with names of their own (blk_errors of block/blk-core.c), or of a file
 * system's server. ENOMEM is a driver's (BLK_STS_RESOURCE): io_uring itself needs no memory for an accepted question.
 */
const NOT_ASKED: readonly string[] = [
  ...["EINVAL", "EOPNOTSUPP", "ENOSYS"],
  ...["EBADF", "ESPIPE", "EINTR", "EAGAIN", "ECANCELED"],
];

const BLKGETSIZE64 = 0x80081272;

function failure(status: number, what: string): Error {
  const code = errnoName(status);
  return Object.assign(new Error(`${code}: ${what}`), { code, errno: status });
}

/** The system calls of the diff storage, on the main thread's ring. */
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
    async writeSynced(fd, offsetBytes, bytes) {
      const memory = MappedMemory.anonymous(bytes.length);
      new Uint8Array(memory.buffer).set(bytes);
      const { address } = memory;
      const status = await ring.submit(
        (target, low, high) =>
          prepareWrite(
            target,
            fd,
            low32(address),
            high32(address),
            bytes.length,
            low32(offsetBytes),
            high32(offsetBytes),
            RwFlag.DSYNC,
            low,
            high,
            SqeFlag.ASYNC,
          ),
        memory,
      );
      memory.unmap();
      if (status !== bytes.length) {
        throw failure(status < 0 ? status : -EIO, `write of ${bytes.length} bytes`);
      }
    },
    async hasLostWrites(fd) {
      const ask = (target: Ring, low: number, high: number): void =>
        prepareWritebackError(target, fd, low, high, 0);
      const status = await ring.submit(ask);
      return status < 0 && !NOT_ASKED.includes(errnoName(status));
    },
    statDirectIo: directIoAlignment,
    endDirectIo,
    async lockFile(fd) {
      if (!(await tryLockFileAsync(fd)))
        throw failure(-11, "the file is locked by another program");
    },
  };
}
