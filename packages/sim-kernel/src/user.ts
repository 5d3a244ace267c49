import type { BlockDevice } from "./block-device.js";
import { SystemError } from "./errno.js";
import type { SimMachine } from "./machine.js";
import { Io, type IoKind } from "./medium.js";
import { OpenFile } from "./process.js";

const O_RDWR_DIRECT = 0o40002;

/** A user of a block device: a file system, a program. Its requests have no time limit. */
export class SimUser {
  readonly device: BlockDevice;
  readonly #machine: SimMachine;
  readonly #open: OpenFile;

  constructor(machine: SimMachine, path: string) {
    this.#machine = machine;
    const node = machine.tree.node(path, "open");
    this.device = node as BlockDevice;
    this.#open = new OpenFile(node, path, this.device.limits.isReadOnly ? 0o40000 : O_RDWR_DIRECT);
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(lengthBytes);
    await this.#io("read", offsetBytes, lengthBytes, bytes);
    return bytes;
  }

  /** @param isDurable it is on the medium when it ends */
  async write(offsetBytes: number, bytes: Uint8Array, isDurable = false): Promise<void> {
    await this.#io("write", offsetBytes, bytes.length, bytes, isDurable);
  }

  async flush(): Promise<void> {
    await this.#io("sync", 0, 0);
  }

  async discard(offsetBytes: number, lengthBytes: number): Promise<void> {
    await this.#io("discard", offsetBytes, lengthBytes);
  }

  /** @param keepsSpace it does not deallocate */
  async zero(offsetBytes: number, lengthBytes: number, keepsSpace = false): Promise<void> {
    await this.#io(keepsSpace ? "zero" : "punch", offsetBytes, lengthBytes);
  }

  close(): void {
    this.#open.release();
  }

  /** @throws SystemError */
  #io(
    kind: IoKind,
    offsetBytes: number,
    lengthBytes: number,
    data?: Uint8Array,
    isDurable = false,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      const done = (result: number): void => {
        if (result >= 0) resolve(result);
        else reject(new SystemError(-result, kind, this.#open.path));
      };
      // Its waiters run before the next event.
      const io = new Io(kind, offsetBytes, lengthBytes, data, isDurable, (result) =>
        this.#machine.scheduler.after(0, () => done(result), undefined, true),
      );
      const status = this.#open.start(io, undefined);
      if (status < 0) io.done(status);
    });
  }
}
