/** Which files survive, and in what state. */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { open, rename } from "node:fs/promises";
import { type RegularFile, SimMachine } from "@blksnap/sim-kernel";
import { createMemoryFile, MappedMemory, tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

async function withMachines(
  seeds: number,
  code: (machine: SimMachine) => Promise<void>,
): Promise<void> {
  for (let seed = 1; seed <= seeds; seed++) {
    const machine = new SimMachine({ seed });
    try {
      await code(machine);
    } finally {
      await machine.close();
    }
  }
}

/** Replaces a file in the correct way: written, synced, renamed, and its folder synced. */
async function replace(path: string, text: string): Promise<void> {
  const handle = await open(`${path}.new`, "w");
  await handle.writeFile(text);
  await handle.sync();
  await handle.close();
  await rename(`${path}.new`, path);
}

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  await handle.sync();
  await handle.close();
}

const OLD = "old ".repeat(3000);
const NEW = "new ".repeat(5000);

test("a power cut leaves a file that is being replaced in its old or its new state", async () => {
  const seen = new Set<string>();
  await withMachines(60, async (machine) => {
    await machine.run(
      machine.start(async () => {
        await replace("/var/lib/file", OLD);
        await syncFolder("/var/lib");
      }),
    );
    void replace("/var/lib/file", NEW).catch(() => undefined);
    // At some time between the first call and the last.
    await machine.sleep(machine.random.below(1500) / 1000);
    machine.cut();
    await machine.settle();
    const text = machine.start(() => readFileSync("/var/lib/file", "utf8"));
    assert.ok(text === OLD || text === NEW, `${text.length} bytes of neither`);
    seen.add(text);
  });
  assert.is(seen.size, 2, "both were seen");
});

test("a file that was replaced and whose folder was synced has its new state", async () => {
  await withMachines(20, async (machine) => {
    await machine.run(
      machine.start(async () => {
        await replace("/var/lib/file", OLD);
        await replace("/var/lib/file", NEW);
        await syncFolder("/var/lib");
      }),
    );
    machine.cut();
    await machine.settle();
    assert.is(
      machine.start(() => readFileSync("/var/lib/file", "utf8")),
      NEW,
    );
  });
});

test("unsynced data may be lost, in part or completely", async () => {
  const seen = new Set<string>();
  await withMachines(60, async (machine) => {
    machine.start(() => writeFileSync("/var/lib/file", NEW));
    machine.cut();
    await machine.settle();
    const there = machine.start(() => existsSync("/var/lib/file"));
    const text = there ? readFileSync("/var/lib/file", "utf8") : "";
    seen.add(!there ? "no name" : text === NEW ? "whole" : "part");
  });
  assert.equal([...seen].sort(), ["no name", "part", "whole"]);
});

test("an orderly reboot only loses what was in memory", async () => {
  await withMachines(5, async (machine) => {
    machine.start(() => {
      writeFileSync("/var/lib/file", NEW);
      writeFileSync("/run/file", NEW);
    });
    const { bootId } = machine;
    machine.reboot();
    await machine.settle();
    machine.start(() => {
      assert.is(readFileSync("/var/lib/file", "utf8"), NEW);
      assert.not.ok(existsSync("/run/file"));
    });
    assert.is.not(machine.bootId, bootId);
  });
});

test("a disk keeps its serial number across reboots, and resets its counters", async () => {
  await withMachines(1, async (machine) => {
    machine.addDisk("sda", { sizeBytes: 2 ** 20 });
    const attribute = (name: string): string => readFileSync(`/sys/block/sda/${name}`, "utf8");
    const writes = (): number => Number(attribute("stat").split(" ")[6]);
    machine.start(() => undefined);
    const serial = attribute("serial");
    await machine.run(machine.user("/dev/sda").write(0, new Uint8Array(4096)));
    assert.is(writes(), 8);
    machine.reboot();
    await machine.settle();
    machine.start(() => undefined);
    assert.is(attribute("serial"), serial);
    assert.is(writes(), 0);
  });
});

test("a kill loses no file, and frees locks and descriptors", async () => {
  await withMachines(5, async (machine) => {
    machine.start(() => {
      writeFileSync("/run/file", NEW);
      assert.ok(tryLockFile(openSync("/run/file", "r+")));
    });
    machine.kill();
    await machine.settle();
    machine.start(() => {
      assert.is(readFileSync("/run/file", "utf8"), NEW);
      const fd = openSync("/run/file", "r+");
      assert.ok(tryLockFile(fd));
      assert.is(fd, 1_000_000, "the lowest number is free again");
      closeSync(fd);
    });
  });
});

test("a kill in the middle of a read closes a file that was opened only for it", () =>
  withMachines(10, async (machine) => {
    machine.addDisk("sda", { sizeBytes: 65536 });
    const exclusive = constants.O_RDWR | constants.O_EXCL;
    const first = async () => {
      const handle = await open("/dev/sda", exclusive);
      return handle.read(Buffer.alloc(4096), 0, 4096, 0);
    };
    machine.start(first).catch(() => undefined);
    await machine.run(() => (machine.runningProcess?.inFlight.size ?? 0) > 0);
    machine.kill();
    await machine.settle();
    machine.start(() => closeSync(openSync("/dev/sda", exclusive)));
  }));

test("mapped memory is the file's, until the process that mapped it is killed", async () => {
  await withMachines(1, async (machine) => {
    const mapped = machine.start(() => {
      writeFileSync("/run/map", new Uint8Array(8192));
      const fd = openSync("/run/map", "r+");
      const one = MappedMemory.file(fd, 0, 8192);
      const other = MappedMemory.file(fd, 0, 8192);
      new Uint8Array(one.buffer)[5000] = 1;
      assert.is(new Uint8Array(other.buffer)[5000], 1);
      assert.is(readFileSync("/run/map")[5000], 1);
      writeSync(fd, Uint8Array.of(2), 0, 1, 5001);
      assert.is(new Uint8Array(one.buffer)[5001], 2);
      return new Uint8Array(one.buffer);
    });
    machine.kill();
    mapped[5000] = 9;
    await machine.settle();
    machine.start(() => assert.is(readFileSync("/run/map")[5000], 1));
  });
});

test("a file in memory ends with its last descriptor", async () => {
  await withMachines(1, async (machine) => {
    machine.start(() => {
      const fd = createMemoryFile("store");
      const other = openSync(`/proc/self/fd/${fd}`, "r+");
      writeSync(fd, Uint8Array.of(1, 2, 3));
      closeSync(fd);
      assert.is(fstatSync(other).size, 3);
      assert.is(fstatSync(other).nlink, 0);
      closeSync(other);
      assert.throws(() => fstatSync(other), /EBADF/);
    });
  });
});

test("data that cannot be written back is gone, and each open file learns of it once", async () => {
  const told = (work: Promise<void>): Promise<string> => work.then(() => "synced", String);
  await withMachines(1, async (machine) => {
    await machine.run(
      machine.start(async () => {
        writeFileSync("/var/lib/file", OLD);
        const [one, other] = [await open("/var/lib/file", "r+"), await open("/var/lib/file")];
        await one.sync();
        await one.write(NEW.slice(0, OLD.length), 0);
        const file = machine.tree.node("/var/lib/file", "open") as RegularFile;
        file.failWriteback();
        for (const handle of [one, other]) assert.match(await told(handle.sync()), "EIO");
        for (const handle of [one, other]) assert.is(await told(handle.sync()), "synced");
        assert.is(readFileSync("/var/lib/file", "utf8"), OLD);
        const late = await open("/var/lib/file");
        assert.is(await told(late.sync()), "synced");
      }),
    );
  });
});

test.run();
