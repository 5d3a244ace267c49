import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:net";
import { constants } from "node:os";
import { join } from "node:path";
import {
  commandStoreSystem,
  type OpenStoreOptions,
  openStore,
  type Store,
  type StoreSystem,
} from "@blksnap/diff-storage";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { failsWith, SLOT_BYTES, withDirectory } from "./support.js";

const BASE: OpenStoreOptions = { system: commandStoreSystem, slotBytes: SLOT_BYTES };

const withSystem = (changes: Partial<StoreSystem>): OpenStoreOptions => ({
  ...BASE,
  system: { ...commandStoreSystem, ...changes },
});
/** A failing system call, with the kernel's number and one of its names. */
const failing = (code: keyof typeof constants.errno) => async (): Promise<never> => {
  throw Object.assign(new Error(code), { code, errno: -constants.errno[code] });
};
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

async function checkReadsBack(store: Store): Promise<void> {
  await store.preallocate(0, 4 * SLOT_BYTES);
  const bytes = Buffer.alloc(SLOT_BYTES, 0x5a);
  if (!store.directIo) {
    writeSync(store.fd, bytes, 0, SLOT_BYTES, SLOT_BYTES);
    const back = Buffer.alloc(SLOT_BYTES);
    assert.is(readSync(store.fd, back, 0, SLOT_BYTES, SLOT_BYTES), SLOT_BYTES);
    assert.equal(back, bytes);
  }
  assert.ok((await store.availableBytes()) !== 0);
}

test("a separate open file, without writes or syncs, is asked about lost writes", () =>
  withDirectory(async (directory) => {
    const before = openDescriptors();
    const asked: number[] = [];
    const hasLostWrites = async (fd: number): Promise<boolean> => {
      asked.push(fd);
      return false;
    };
    const options = { ...withSystem({ hasLostWrites }), directIo: "never" } as const;
    const store = await openStore(directory, options);
    assert.is(await store.hasLostWrites?.(), false);
    const [fd] = asked as [number];
    assert.is.not(fd, store.fd);
    const [its, other] = [fstatSync(store.fd), fstatSync(fd)];
    assert.equal([its.dev, its.ino], [other.dev, other.ino]);
    await store.close(false);
    assert.is(openDescriptors(), before);
  }));

test("a directory gets an unnamed file that vanishes", () =>
  withDirectory(async (directory) => {
    const store = await openStore(directory, BASE);
    assert.is(store.kind, "directory");
    assert.is(store.openedBytes, 0);
    assert.equal(readdirSync(directory), []);
    await checkReadsBack(store);
    await store.close(false);
    await store.close(false);
  }));

test("a missing program is named, and not blamed on the store", () =>
  withDirectory(async (directory) => {
    const path = process.env["PATH"];
    process.env["PATH"] = directory;
    try {
      const error = await failsWith("STORE_IO", () => openStore(directory, BASE));
      assert.match(error.message, "cannot run fallocate, a program of util-linux");
    } finally {
      process.env["PATH"] = path;
    }
  }));

test("a directory in memory works too", () =>
  withDirectory(async (directory) => {
    const store = await openStore(directory, BASE);
    assert.is(await store.isInMemory?.(), true);
    await checkReadsBack(store);
    await store.close(false);
  }, "/dev/shm"));

test("a named file in a directory survives the process that made it, but not its close", () =>
  withDirectory(async (directory) => {
    const named = { ...BASE, fileName: "old-data" };
    const store = await openStore(directory, named);
    assert.is(statSync(join(directory, "old-data")).mode & 0o777, 0o600);
    await failsWith("STORE_BUSY", () => openStore(directory, named));
    await checkReadsBack(store);
    await store.close(true);
    const again = await openStore(directory, { ...named, reopen: true });
    assert.is(again.openedBytes, 4 * SLOT_BYTES);
    await again.close(false);
    assert.not.ok(existsSync(join(directory, "old-data")));
    await failsWith("STORE_NOT_FOUND", () => openStore(directory, { ...named, reopen: true }));
    await failsWith("ARGUMENT_INVALID", () => openStore(directory, { ...BASE, fileName: "../x" }));
    // An existing directory is not reported as missing.
    await failsWith("STORE_KIND_UNSUPPORTED", () => openStore("/proc", named));
  }));

test("a regular file is used with its size, stays, and is locked", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "store");
    await failsWith("STORE_NOT_FOUND", () => openStore(path, BASE));
    writeFileSync(path, "");
    truncateSync(path, 6 * SLOT_BYTES);
    symlinkSync(path, join(directory, "link"));
    const store = await openStore(join(directory, "link"), BASE);
    assert.is(store.kind, "file");
    assert.is(store.openedBytes, 6 * SLOT_BYTES);
    await failsWith("STORE_BUSY", () => openStore(path, BASE));
    await store.preallocate(6 * SLOT_BYTES, SLOT_BYTES);
    await store.trim(0);
    assert.is(statSync(path).size, 6 * SLOT_BYTES, "a trim leaves what was there before");
    await store.close(false);
    assert.ok(existsSync(path));
  }));

test("a file larger than the limit is accepted unchanged", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "store");
    writeFileSync(path, "");
    truncateSync(path, 3 * SLOT_BYTES);
    const store = await openStore(path, { ...BASE, limitBytes: 2 * SLOT_BYTES });
    assert.is(store.openedBytes, 3 * SLOT_BYTES);
    await store.close(false);
    assert.is(statSync(path).size, 3 * SLOT_BYTES);
  }));

test("punching frees the space of a range", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "store");
    writeFileSync(path, "");
    const store = await openStore(path, BASE);
    await store.preallocate(0, 64 * SLOT_BYTES);
    const before = statSync(path).blocks;
    await store.punch(16 * SLOT_BYTES, 32 * SLOT_BYTES);
    const after = statSync(path);
    assert.is(after.size, 64 * SLOT_BYTES);
    assert.is(before - after.blocks, (32 * SLOT_BYTES) / 512);
    await store.close(false);
  }));

test("memory is a kind of store", async () => {
  const store = await openStore("memory", { ...BASE, limitBytes: 8 * SLOT_BYTES });
  assert.is(await store.isInMemory?.(), true);
  assert.is(store.kind, "memory");
  await store.preallocate(0, SLOT_BYTES);
  assert.is(await store.availableBytes(), undefined);
  await store.close(false);
});

test("a path that is no file, directory or block device is refused", () =>
  withDirectory(async (directory) => {
    const socketPath = join(directory, "socket");
    const server = createServer().listen(socketPath);
    await new Promise((done) => server.once("listening", done));
    spawnSync("mkfifo", [join(directory, "fifo")]);
    for (const path of ["/dev/null", socketPath, join(directory, "fifo")]) {
      const error = await failsWith("STORE_KIND_UNSUPPORTED", () => openStore(path, BASE));
      assert.is(error.errnoName, "EINVAL");
    }
    server.close();
    await failsWith("ARGUMENT_INVALID", () => openStore("", BASE));
    await failsWith("ARGUMENT_INVALID", () => openStore("a\0b", BASE));
    await failsWith("LIMIT_INVALID", () => openStore(directory, { ...BASE, limitBytes: 0 }));
  }));

test("direct I/O is used where its alignment is no stricter than the caller's", () =>
  withDirectory(async (directory) => {
    const aligned = (bytes: number): Partial<StoreSystem> => ({
      statDirectIo: () => ({ memoryAlignmentBytes: 4, offsetAlignmentBytes: bytes }),
    });
    const open = async (options: OpenStoreOptions): Promise<[boolean, number]> => {
      const store = await openStore(directory, options);
      await store.close(false);
      return [store.directIo, store.alignmentBytes];
    };
    assert.equal(await open(withSystem(aligned(512))), [true, 512]);
    assert.equal(await open(withSystem(aligned(4096))), [false, 1]);
    const required = { requiredAlignmentBytes: 4096 };
    assert.equal(await open({ ...withSystem(aligned(4096)), ...required }), [true, 4096]);
    assert.equal(await open({ ...withSystem(aligned(512)), directIo: "never" }), [false, 1]);
    assert.equal(await open(BASE), [false, 1], "unknown alignment is taken to be a page");
  }));

test("a file with a generated name can be renamed, and is removed under its new name", () =>
  withDirectory(async (directory) => {
    const store = await openStore(directory, { ...BASE, fileName: "before" });
    const told: string[][] = [];
    await store.rename?.("after", () => told.push(readdirSync(directory)));
    assert.equal(told, [["after"]]);
    await checkReadsBack(store);
    await store.close(false);
    assert.equal(readdirSync(directory), []);
    const unnamed = await openStore(directory, BASE);
    const why = await unnamed.rename?.("after", () => undefined).catch(String);
    assert.match(String(why), /no file/);
    await unnamed.close(false);
  }));

test("a file that is being renamed is still removed, and the new name is not reported", () =>
  withDirectory(async (directory) => {
    const store = await openStore(directory, { ...BASE, fileName: "before" });
    let isTold = false;
    const renaming = store.rename?.("after", () => {
      isTold = true;
    });
    await store.close(false);
    assert.equal(readdirSync(directory), []);
    await renaming;
    assert.not.ok(isTold);
  }));

test("a smaller alignment that comes later ends direct I/O, where it is too small", () =>
  withDirectory(async (directory) => {
    const ended: number[] = [];
    const system: Partial<StoreSystem> = {
      statDirectIo: () => ({ memoryAlignmentBytes: 4, offsetAlignmentBytes: 4096 }),
      endDirectIo: (fd) => void ended.push(fd),
    };
    const options = { ...withSystem(system), requiredAlignmentBytes: 4096 };
    const store = await openStore(directory, options);
    await store.allowAlignment(4096);
    assert.equal([store.directIo, store.alignmentBytes, ended], [true, 4096, []]);
    await store.allowAlignment(512);
    await store.allowAlignment(512);
    assert.equal([store.directIo, store.alignmentBytes, ended], [false, 1, [store.fd]]);
    await store.close(false);
    const { endDirectIo: _, ...unable } = system;
    const another = await openStore(directory, {
      ...withSystem(unable),
      ...{ requiredAlignmentBytes: 4096 },
    });
    await failsWith("STORE_KIND_UNSUPPORTED", () => another.allowAlignment(512));
    await another.close(false);
  }));

test("system failures become errors that say what to do, and leave nothing open", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "store");
    writeFileSync(path, "");
    const before = openDescriptors();
    for (const [code, changes] of [
      ["STORE_NOT_GROWABLE", { fallocate: failing("EOPNOTSUPP") }],
      ["STORE_IO", { fallocate: failing("EIO") }],
      ["STORE_NOT_GROWABLE", { fallocate: failing("ENOTSUP") }],
      ["STORE_BUSY", { lockFile: failing("EAGAIN") }],
      ["STORE_BUSY", { lockFile: failing("EWOULDBLOCK") }],
      ["STORE_IO", { statDirectIo: failing("EIO") }],
    ] as const) {
      const error = await failsWith(code, () => openStore(path, withSystem(changes)));
      assert.is(error.path, path);
      assert.instance(error.cause, Error);
    }
    await failsWith("STORE_IO", () =>
      openStore("memory", withSystem({ createMemoryFile: failing("EMFILE") })),
    );
    assert.is(openDescriptors(), before);
    assert.is(statSync(path).size, 0);
  }));

test("a failure is identified by its number, whatever its name", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "store");
    writeFileSync(path, "");
    const codes = new Map<number, string>();
    for (const [code, number] of Object.entries(constants.errno)) {
      for (const told of [{ code, errno: -number }, { code }, { errno: -number }]) {
        const lockFile = async (): Promise<never> => {
          throw Object.assign(new Error("told"), told);
        };
        const failure = await openStore(path, withSystem({ lockFile })).then(
          () => "opened",
          (error) => `${error.code} ${error.message.replace(/^.*\((E\w+): told\)$/s, "$1")}`,
        );
        assert.is(codes.get(number) ?? failure, failure, `${code} ${JSON.stringify(told)}`);
        codes.set(number, failure);
      }
    }
    assert.is(codes.get(constants.errno.EAGAIN), "STORE_BUSY EAGAIN");
    assert.is(codes.get(constants.errno.EOPNOTSUPP), "STORE_NOT_GROWABLE EOPNOTSUPP");
  }));

test("a file that may not be written is refused", () =>
  withDirectory(async (directory) => {
    if (process.geteuid!() === 0) {
      // Root may write anything, so a path below a file and sysfs are used.
      const file = join(directory, "file");
      writeFileSync(file, "");
      await failsWith("STORE_NOT_FOUND", () => openStore(join(file, "below"), BASE));
      return;
    }
    const path = join(directory, "store");
    writeFileSync(path, "");
    chmodSync(path, 0o400);
    await failsWith("STORE_PERMISSION", () => openStore(path, BASE));
  }));

test("the descriptors are closed on exec", () =>
  withDirectory(async (directory) => {
    const store = await openStore(directory, BASE);
    const { stdout } = spawnSync("ls", ["-l", "/proc/self/fd"], { encoding: "utf8" });
    assert.not.match(stdout, directory);
    await store.close(false);
    assert.throws(() => openSync(`/proc/self/fd/${store.fd}`, "r"));
  }));

test.run();
