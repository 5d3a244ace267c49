/**
 * The process that freezes and thaws for a take: libexec/freeze-guard.sh.
 *
 * It is a separate process because of two deaths. A killed daemon can thaw nothing. And a thread of the daemon in
 * FIFREEZE cannot die before the freeze has written everything through the front, which waits for the next daemon,
 * which in turn cannot recover the front before this daemon is gone.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";

/** Found by its name: in a bundle, modules have other paths. */
const MANIFEST_URL = import.meta.resolve("@blksnap/linux-block/package.json");
/** Kept in memory: when the guard starts, the file system with the script may be frozen. */
const SCRIPT = readFileSync(new URL("libexec/freeze-guard.sh", MANIFEST_URL), "utf8");
/** Folders of fsfreeze; a daemon's PATH may lack them. */
const SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin";
/** First descriptor after the standard ones and the script's. */
const FIRST_DESCRIPTOR = 4;

/** The guard's freeze of one file system: done, or the message of fsfreeze. */
export type FreezeAnswer = { readonly frozen: true } | { readonly frozen: false; message: string };

export class FreezeGuard {
  /** Resolves with the end of the guard: true if it ended by itself, with everything thawed. */
  readonly ended: Promise<boolean>;
  readonly #child: ChildProcess;
  readonly #asked = new Map<number, (answer: FreezeAnswer) => void>();
  readonly #onStuck: (index: number, message: string) => void;
  #alive = true;
  #partialLine = "";

  /**
   * Starts the guard in its own session, where signals to the daemon's group do not reach it. It inherits only the
   * places.
   * @param program as in HelperCalls
   * @param places descriptors of the file systems: directories or files
   * @param limitS after this many seconds it thaws, whatever the daemon does
   * @param onStuck called with the file system that could not be thawed
   * @throws as spawn does
   */
  constructor(
    program: string,
    places: readonly number[],
    limitS: number,
    onStuck: (index: number, message: string) => void,
  ) {
    this.#onStuck = onStuck;
    this.#child = spawn("/bin/sh", ["-c", SCRIPT, "freeze-guard", String(limitS), program], {
      cwd: "/",
      detached: true,
      env: { ...process.env, PATH: `${process.env["PATH"] ?? ""}:${SYSTEM_PATH}`, LC_ALL: "C" },
      stdio: ["pipe", "pipe", "ignore", "ignore", ...places],
    });
    // Its "exit" reports a guard that is gone.
    this.#child.stdin?.on("error", () => {});
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#onText(text));
    this.ended = new Promise((resolve) => {
      this.#child.on("error", (error) => resolve(this.#end(false, error.message)));
      // Not "exit": the last lines may still be in flight.
      this.#child.on("close", (status) => resolve(this.#end(status === 0, "the guard has ended")));
    });
  }

  get alive(): boolean {
    return this.#alive;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Freezes one file system; call it for the next one only after this one has resolved. */
  freeze(index: number): Promise<FreezeAnswer> {
    if (!this.#alive) return Promise.resolve({ frozen: false, message: "the guard has ended" });
    return new Promise((resolve) => {
      this.#asked.set(index, resolve);
      this.#send("freeze", index);
    });
  }

  /** Thaws a file system that is already frozen. */
  adopt(index: number): void {
    this.#send("adopt", index);
  }

  /** Thaws everything. */
  thaw(): void {
    this.#child.stdin?.end();
  }

  /** Detaches from the guard: it does not keep this process alive. */
  abandon(): void {
    this.#child.unref();
    this.#child.stdout?.destroy();
  }

  #send(verb: string, index: number): void {
    this.#child.stdin?.write(`${verb} ${FIRST_DESCRIPTOR + index}\n`);
  }

  #onText(text: string): void {
    const lines = (this.#partialLine + text).split("\n");
    this.#partialLine = lines.pop() ?? "";
    for (const line of lines) {
      const [, verb, descriptor, message = ""] = /^(\w+) (\d+) ?(.*)$/.exec(line) ?? [];
      const index = Number(descriptor) - FIRST_DESCRIPTOR;
      if (verb === "frozen") this.#answer(index, { frozen: true });
      else if (verb === "failed") this.#answer(index, { frozen: false, message });
      else if (verb === "stuck") this.#onStuck(index, message);
    }
  }

  #answer(index: number, answer: FreezeAnswer): void {
    this.#asked.get(index)?.(answer);
    this.#asked.delete(index);
  }

  #end(clean: boolean, message: string): boolean {
    this.#alive = false;
    for (const index of [...this.#asked.keys()]) this.#answer(index, { frozen: false, message });
    return clean;
  }
}
