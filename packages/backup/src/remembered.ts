/** A short text that survives a kill: the id of a snapshot to destroy. */
import { realFiles, replaceFile } from "./files.js";
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

/** One that is set anew while it is set. */
export function rememberedAgain(path: string): Remembered {
  const set = (text: string) => replaceFile(realFiles, path, Buffer.from(text));
  return { ...rememberedInFile(path), set };
}

export function rememberedInStore(objects: Objects, key: string): Remembered {
  return {
    get: async () => (await objects.get(key))?.toString(),
    set: (text) => objects.put(key, Buffer.from(text)),
    clear: () => objects.remove(key),
  };
}
