/** A mounted file system that stops answering when a test wants it to. */
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { FromFuseServer, FuseRequest, ToFuseServer } from "./fuse-server.js";

const SERVER = new URL("./fuse-server.js", import.meta.url);

export class HungFileSystem {
  /** Of its regular files, whose content is zeros at first. */
  readonly paths: readonly string[];
  readonly #mountPoint: string;
  readonly #server: ChildProcess;
  readonly #withheld = new Map<FuseRequest, number>();

  private constructor(mountPoint: string, paths: readonly string[], server: ChildProcess) {
    this.#mountPoint = mountPoint;
    this.paths = paths;
    this.#server = server;
  }

  /** Why there is none on this machine; undefined if there can be one. */
  static get lacks(): string | undefined {
    if (process.geteuid?.() !== 0) return "only root can mount";
    const known = readFileSync("/proc/filesystems", "utf8");
    return /\tfuse$/m.test(known) ? undefined : "the kernel has no FUSE";
  }

  /** @param mountPoint a directory */
  static async mount(
    mountPoint: string,
    fileCount: number,
    fileBytes: number,
  ): Promise<HungFileSystem> {
    const words = [mountPoint, String(fileCount), String(fileBytes)];
    const server = fork(SERVER, words, { execArgv: [] });
    const paths = Array.from({ length: fileCount }, (_, at) => join(mountPoint, `file${at}`));
    const its = new HungFileSystem(mountPoint, paths, server);
    const ended = once(server, "exit").then(([status]) => {
      throw new Error(`the server of ${mountPoint} has ended: ${status}`);
    });
    ended.catch(() => undefined);
    await Promise.race([once(server, "message"), ended]);
    server.on("message", (message: FromFuseServer) => its.#noted(message));
    return its;
  }

  #noted(message: FromFuseServer): void {
    if (message.type !== "withheld") return;
    const { request } = message;
    this.#withheld.set(request, this.withheld(request) + 1);
  }

  /** How many requests of this kind were not answered at first. */
  withheld(request: FuseRequest): number {
    return this.#withheld.get(request) ?? 0;
  }

  /**
   * From now on these requests are not answered until answer().
   * @param pid of the process whose requests are meant; absent: of all
   */
  withhold(requests: readonly FuseRequest[], pid?: number): Promise<void> {
    return this.#send({ withhold: requests, ...(pid !== undefined && { pid }) });
  }

  /** Answers everything. */
  answer(): Promise<void> {
    return this.#send({ withhold: [] });
  }

  #send(message: ToFuseServer): Promise<void> {
    return new Promise((resolve, reject) => {
      const sent = (error: Error | null): void => (error === null ? resolve() : reject(error));
      this.#server.send(message, sent);
    });
  }

  /** Ends it: its callers get an error. */
  async end(): Promise<void> {
    const exit = once(this.#server, "exit");
    this.#server.kill("SIGKILL");
    await exit;
    spawnSync("umount", ["--lazy", this.#mountPoint]);
  }
}
