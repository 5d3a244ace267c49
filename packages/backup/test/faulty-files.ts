/** File operations of which one is the last, or fails. */
import { writeFileSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BackupError } from "../dist/errors.js";
import { type Content, type Files, lengthOfContent, realFiles, wholeOf } from "../dist/files.js";

export class Killed extends Error {}

function halfOf(content: Content): Uint8Array {
  return wholeOf(content).subarray(0, lengthOfContent(content) / 2);
}

/** A process that is killed in its operation number `last`; a file stays half written. */
export class KilledFiles {
  readonly files: Files;
  steps = 0;
  readonly #last: number;

  constructor(last: number) {
    this.#last = last;
    this.files = new Proxy(realFiles, {
      get:
        (_, name: keyof Files) =>
        (...args: never[]) =>
          this.#step(name, args),
    });
  }

  #step(name: keyof Files, args: never[]): unknown {
    this.steps++;
    if (this.steps === this.#last && name === "create") {
      const [path, content] = args as unknown as [string, Content];
      writeFileSync(path, halfOf(content));
    }
    if (this.steps >= this.#last) return Promise.reject(new Killed());
    return (realFiles[name] as (...all: never[]) => unknown)(...args);
  }
}

/** A disk with space for so many more bytes. */
export function fullAfter(bytes: number): Files {
  let left = bytes;
  return {
    ...realFiles,
    create: async (path, data) => {
      left -= lengthOfContent(data);
      if (left < 0) {
        writeFileSync(path, halfOf(data));
        throw new BackupError("TARGET_FULL", `can't write ${path}: ENOSPC`);
      }
      await realFiles.create(path, data);
    },
  };
}

/** Makes all locks of a store those of a process that has ended. */
export async function endHolders(store: string): Promise<void> {
  const folder = join(store, "locks");
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((one) => one.endsWith(".lock"))) {
    const holder = JSON.parse(await readFile(join(folder, name), "utf8")) as object;
    await writeFile(join(folder, name), JSON.stringify({ ...holder, began: "0" }));
  }
}
