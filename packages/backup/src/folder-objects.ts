/** A folder as the place of a store: each key is a file, written beside it and renamed. */
import { randomUUID } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { type Content, type Files, realFiles } from "./files.js";
import type { ObjectEntry, Objects } from "./objects.js";

const UNFINISHED = "tmp";
/** Names that put() uses; other files there are foreign, wherever the folder leads. */
const UNFINISHED_FILE = /-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export class FolderObjects implements Objects {
  readonly path: string;
  readonly depth = 1;
  readonly isHashed = false;
  readonly #files: Files;

  constructor(path: string, files: Files = realFiles) {
    this.path = path;
    this.#files = files;
  }

  pathOf(key: string): string {
    return join(this.path, key);
  }

  async look(key: string): Promise<ObjectEntry | undefined> {
    const found = await this.#files.look(this.pathOf(key));
    if (found === undefined) return undefined;
    return { key, sizeBytes: found.sizeBytes, modifiedMs: found.modifiedMs };
  }

  get(key: string): Promise<Buffer | undefined> {
    return this.#files.read(this.pathOf(key));
  }

  async put(key: string, data: Content): Promise<void> {
    const own = this.pathOf(join(UNFINISHED, `${basename(key)}-${randomUUID()}`));
    await this.#files.makeFolder(dirname(own));
    await this.#files.makeFolder(dirname(this.pathOf(key)));
    try {
      await this.#files.create(own, data);
      await this.#files.rename(own, this.pathOf(key));
    } catch (error) {
      await this.#files.remove(own).catch(() => undefined);
      throw error;
    }
  }

  async *list(prefix: string): AsyncGenerator<ObjectEntry> {
    for (const name of await this.#files.list(this.pathOf(prefix))) {
      const key = prefix + name;
      const found = await this.#files.look(this.pathOf(key));
      if (found === undefined) continue;
      if (found.isFolder) yield* this.list(`${key}/`);
      else yield { key, sizeBytes: found.sizeBytes, modifiedMs: found.modifiedMs };
    }
  }

  remove(key: string): Promise<void> {
    return this.#files.remove(this.pathOf(key));
  }

  /** Syncs names from the innermost folder outwards; contents are durable before a file has its name. */
  async sync(keys: Iterable<string>): Promise<void> {
    const folders = new Set<string>();
    for (const key of keys) {
      for (let at = dirname(key); ; at = dirname(at)) {
        folders.add(at);
        if (at === ".") break;
      }
    }
    const depthOf = (folder: string): number => (folder === "." ? 0 : folder.split("/").length);
    const inwardFirst = [...folders].sort((one, other) => depthOf(other) - depthOf(one));
    for (const folder of inwardFirst) {
      await this.#files.makeFolder(this.pathOf(folder));
      await this.#files.syncFolder(this.pathOf(folder));
    }
  }

  async removeUnfinished(): Promise<void> {
    const folder = this.pathOf(UNFINISHED);
    for (const name of await this.#files.list(folder)) {
      if (UNFINISHED_FILE.test(name)) await this.#files.remove(join(folder, name));
    }
  }
}
