import { closeSync, constants, ftruncateSync, mkdirSync, openSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { ControlError } from "../control/index.js";

/** A file of maps in the state directory: sparse, mapped shared, so that it outlives the process. */
export interface MapFile {
  readonly path: string;
  readonly fd: number;
  readonly lengthBytes: number;
}

/** Where the maps live: a directory on tmpfs, of this daemon alone. */
export class StateDirectory {
  readonly path: string;

  /** @throws the error of mkdir(2) */
  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { recursive: true, mode: 0o700 });
  }

  /**
   * Makes an empty (all zero) map file; one of the same name is replaced.
   * @throws ControlError OUT_OF_MEMORY, with the errno of the file system
   */
  create(name: string, lengthBytes: number): MapFile {
    const path = join(this.path, name);
    const { O_RDWR, O_CREAT, O_TRUNC } = constants;
    let fd: number | undefined;
    try {
      fd = openSync(path, O_RDWR | O_CREAT | O_TRUNC, 0o600);
      ftruncateSync(fd, lengthBytes);
      return { path, fd, lengthBytes };
    } catch (error) {
      if (fd !== undefined) {
        closeSync(fd);
        unlinkSync(path);
      }
      const { code } = error as NodeJS.ErrnoException;
      throw new ControlError("OUT_OF_MEMORY", `cannot make the map ${path}: ${code}`, {
        cause: error,
        ...(code === undefined ? {} : { errnoName: code }),
      });
    }
  }

  /** Closes and removes a map file. */
  remove(file: MapFile): void {
    closeSync(file.fd);
    unlinkSync(file.path);
  }
}
