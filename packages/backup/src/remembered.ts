/** A short text that survives a kill: the id of a snapshot to destroy. */
import { randomUUID } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";
import { targetError } from "./errors.js";
import { realFiles } from "./files.js";
import type { Objects } from "./objects.js";

export interface Remembered {
  /** Undefined if there is none. */
  get(): Promise<string | undefined>;
  set(text: string): Promise<void>;
  clear(): Promise<void>;
}

export function rememberedInFile(path: string): Remembered {
  return {
    get: async () => (await realFiles.read(path))?.toString(),
    set: (text) => realFiles.create(path, Buffer.from(text)),
    clear: () => realFiles.remove(path),
  };
}

/** One that is set anew while it is set. It survives a kill, and not a power cut: its folder is in memory. */
export function rememberedHere(path: string): Remembered {
  const set = async (text: string): Promise<void> => {
    const own = `${path}.${randomUUID()}`;
    try {
      await writeFile(own, text, { flag: "wx", mode: 0o600 });
      await rename(own, path);
    } catch (error) {
      await realFiles.remove(own).catch(() => undefined);
      throw targetError("write", path, error);
    }
  };
  return { ...rememberedInFile(path), set };
}

export function rememberedInStore(objects: Objects, key: string): Remembered {
  return {
    get: async () => (await objects.get(key))?.toString(),
    set: (text) => objects.put(key, Buffer.from(text)),
    clear: () => objects.remove(key),
  };
}
