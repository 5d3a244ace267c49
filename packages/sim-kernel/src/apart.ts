/** Answers the calls of the helper program (native/apart of @blksnap/uring). */
import { BlockDevice } from "./block-device.js";
import { Errno, SystemError } from "./errno.js";
import type { SimMachine } from "./machine.js";
import { Io } from "./medium.js";
import { CharacterDevice, RegularFile, TextFile } from "./nodes.js";
import { OpenFile, SimProcess } from "./process.js";
import { statusOf } from "./status.js";

const O_RDONLY = 0;
const O_RDWR = 2;
const O_EXCL = 0o200;
/** 32-bit words of a command, which has 80 bytes. */
const COMMAND_WORDS = 20;
const READ_BYTES_MAX = 2 ** 20;

/** Calls that wait for the medium of a path, but for no file. */
const ON_NAMES: ReadonlySet<string> = new Set(["open", "claim", "unlink", "stat"]);

/** The answer to a call: its status, and further lines. */
export type Answer = readonly [status: number, ...lines: string[]];

/** A process beside the program's: it has descriptors of its own, and may finish a call after the program's death. */
export class ApartCalls {
  readonly #machine: SimMachine;
  readonly #process = new SimProcess(0);

  constructor(machine: SimMachine) {
    this.#machine = machine;
  }

  call(words: readonly string[], done: (answer: Answer) => void): void {
    const [verb = "", path = "", ...more] = words;
    const make = (): void => {
      try {
        this.#call(verb, path, more, done);
      } catch (error) {
        if (!(error instanceof SystemError)) throw error;
        done([error.errno]);
      }
    };
    const medium = ON_NAMES.has(verb) ? this.#machine.tree.mediumAt(path) : undefined;
    if (medium === undefined) make();
    else medium.call(verb, make);
  }

  #call(verb: string, path: string, more: readonly string[], done: (answer: Answer) => void): void {
    switch (verb) {
      case "command":
        this.#command(path, Number(more[0]), Buffer.from(more[1] ?? "", "hex"), done);
        return;
      case "fsync":
        this.#io(path, "sync", 0, 0, (status) => done([status]));
        return;
      case "claim":
        this.#open(path, O_RDONLY | O_EXCL).release();
        done([0]);
        return;
      case "open":
        this.#open(path, O_RDONLY).release();
        done([0]);
        return;
      case "unlink":
        this.#machine.files.unlink(path);
        done([0]);
        return;
      case "write":
        done([this.#write(path, more[0] ?? "")]);
        return;
      case "stat":
        done(this.#stat(path));
        return;
      case "read":
        this.#read(path, Number(more[0]), Math.min(Number(more[1]), READ_BYTES_MAX), done);
        return;
      case "loops":
        done([0, ...[path, ...more].map(() => String(-Errno.ENXIO))]);
        return;
      case "extents":
        done(this.#extents(path));
        return;
      default:
        done([-Errno.EINVAL]);
    }
  }

  #open(path: string, flags: number): OpenFile {
    return new OpenFile(this.#machine.tree.node(path, "open"), path, flags);
  }

  #command(path: string, op: number, bytes: Uint8Array, done: (answer: Answer) => void): void {
    const open = this.#open(path, O_RDWR);
    const words = new Int32Array(COMMAND_WORDS);
    new Uint8Array(words.buffer).set(bytes);
    const end = (status: number): void => {
      open.release();
      done([status]);
    };
    if (open.node instanceof CharacterDevice) {
      open.node.command({ op, words, process: this.#process, done: end }, open);
    } else {
      end(-Errno.EOPNOTSUPP);
    }
  }

  #io(
    path: string,
    kind: "sync" | "read",
    offsetBytes: number,
    lengthBytes: number,
    done: (status: number, open: OpenFile, data: Uint8Array) => void,
  ): void {
    const open = this.#open(path, O_RDONLY);
    const data = new Uint8Array(lengthBytes);
    const io = new Io(kind, offsetBytes, lengthBytes, data, false, (status) => {
      open.release();
      done(status, open, data);
    });
    const status = open.start(io, undefined);
    if (status < 0) io.done(status);
  }

  #read(
    path: string,
    offsetBytes: number,
    lengthBytes: number,
    done: (answer: Answer) => void,
  ): void {
    this.#io(path, "read", offsetBytes, lengthBytes, (status, { node }, data) => {
      if (status < 0) done([status]);
      else done([0, `${node.rdev} ${Buffer.from(data.subarray(0, status)).toString("hex")}`]);
    });
  }

  #write(path: string, text: string): number {
    const node = this.#machine.tree.node(path, "open");
    if (node instanceof TextFile) return node.write(text);
    if (!(node instanceof RegularFile)) return -Errno.EINVAL;
    node.content.write(0, Buffer.from(text));
    return text.length;
  }

  #stat(path: string): Answer {
    const { node, realPath } = this.#machine.tree.walk(path, "stat");
    if (node === undefined) return [-Errno.ENOENT];
    const { dev, ino, mode, rdev } = statusOf(node);
    return [0, `${dev} ${ino} ${mode} ${rdev}`, realPath, "end"];
  }

  /** A file of the simulated file system has no position on a device. */
  #extents(path: string): Answer {
    const node = this.#machine.tree.node(path, "open");
    const { dev, mode } = statusOf(node);
    const status = node instanceof BlockDevice || !node.fs.isVolatile ? 0 : -Errno.EOPNOTSUPP;
    return [status, `${dev} ${mode}`];
  }
}
