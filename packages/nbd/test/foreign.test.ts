/** Interoperability with libnbd's and QEMU's programs and fio, which Debian has: libnbd-bin, qemu-utils, fio. */
import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { NbdServer } from "@blksnap/nbd";
import { Dice, lacksPrograms, testUnless } from "@blksnap/testing";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { MIB, ramDisk, withServer } from "./support.js";

const run = promisify(execFile);
const SIZE = 16 * MIB;

async function output(program: string, ...words: string[]): Promise<string> {
  const { stdout } = await run(program, words, { timeout: 120_000, maxBuffer: 64 << 20 });
  return stdout;
}

const CONTEXTS = [
  {
    name: "base:allocation",
    extents: [
      { lengthBytes: 4 * MIB, flags: 0 },
      { lengthBytes: 2 * MIB, flags: 3 },
    ],
  },
  {
    name: "qemu:dirty-bitmap:since-3",
    extents: [
      { lengthBytes: 65_536, flags: 0 },
      { lengthBytes: 131_072, flags: 1 },
    ],
  },
];

function image(): Buffer {
  const bytes = Buffer.alloc(SIZE, new Dice(3).bytes(4093));
  return bytes.fill(0, 4 * MIB, 6 * MIB);
}

const foreign = testUnless(test, lacksPrograms("nbdinfo", "qemu-img", "fio"));

foreign("libnbd reads both contexts, and copies there and back", async () => {
  await withServer([ramDisk(SIZE, { contexts: CONTEXTS })], async (server) => {
    const uri = server.uri("disk");
    assert.is((await output("nbdinfo", "--size", uri)).trim(), String(SIZE));
    assert.match(await output("nbdinfo", "--list", server.uri("")), /export="disk":/);
    const map = async (context: string): Promise<number[][]> => {
      const json = await output("nbdinfo", `--map=${context}`, "--json", uri);
      const found = JSON.parse(json) as { offset: number; length: number; type: number }[];
      return found.map(({ offset, length, type }) => [offset, length, type]);
    };
    assert.equal(await map("base:allocation"), [
      [0, 4 * MIB, 0],
      [4 * MIB, 2 * MIB, 3],
      [6 * MIB, 10 * MIB, 0],
    ]);
    assert.equal(await map("qemu:dirty-bitmap:since-3"), [
      [0, 65_536, 0],
      [65_536, 131_072, 1],
      [196_608, SIZE - 196_608, 0],
    ]);
    const folder = dirname(server.socketPath);
    const [from, to] = [join(folder, "from"), join(folder, "to")];
    writeFileSync(from, image());
    await output("nbdcopy", "--flush", from, uri);
    await output("nbdcopy", uri, to);
    assert.is(Buffer.compare(readFileSync(to), image()), 0);
  });
});

foreign("QEMU converts, compares, maps, discards and reads patterns", async () => {
  await withServer([ramDisk(SIZE, { contexts: CONTEXTS })], async (server) => {
    const uri = server.uri("disk");
    const from = join(dirname(server.socketPath), "from");
    writeFileSync(from, image());
    await output("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", from, uri);
    await output("qemu-img", "compare", "-f", "raw", "-F", "raw", from, uri);
    const place = `driver=nbd,export=disk,server.type=unix,server.path=${server.socketPath}`;
    const bitmap = `${place},x-dirty-bitmap=qemu:dirty-bitmap:since-3`;
    const map = await output("qemu-img", "map", "--output=json", "--image-opts", bitmap);
    const found = JSON.parse(map) as { start: number; length: number; data: boolean }[];
    // QEMU reports changed blocks as "no data".
    const changed = found.filter(({ data }) => !data).map(({ start, length }) => [start, length]);
    assert.equal(changed, [[65_536, 131_072]]);
    const commands = [
      ...["write -P 7 1M 3M", "read -P 7 1M 3M", "write -z 5M 6M", "read -P 0 5M 6M"],
      ...["write -f -P 9 512 512", "read -P 9 512 512", "discard 12M 1M", "flush"],
    ];
    const words = commands.flatMap((command) => ["-c", command]);
    assert.not.match(await output("qemu-io", "-f", "raw", ...words, uri), /error|failed/i);
  });
});

foreign("fio verifies what it writes, over several connections", async () => {
  await withServer([ramDisk(SIZE)], async (server) => {
    const common = ["--ioengine=nbd", `--uri=${server.uri("disk")}`, "--rw=randwrite", "--bs=4k"];
    const jobs = ["--name=low", "--size=8m", "--name=high", "--size=8m", "--offset=8m"];
    const shown = await output(
      "fio",
      // Where fio stores the state of its writes.
      `--aux-path=${dirname(server.socketPath)}`,
      ...[...common, "--iodepth=16", "--verify=crc32c", "--output-format=json", ...jobs],
    );
    const { jobs: done } = JSON.parse(shown.slice(shown.indexOf("{"))) as {
      jobs: { error: number }[];
    };
    assert.equal(
      done.map(({ error }) => error),
      [0, 0],
    );
  });
});

test("NbdServer's addresses work for other programs", async () => {
  await withServer([ramDisk(MIB)], (server) => {
    assert.ok(server instanceof NbdServer);
    assert.is(server.uri("a b"), `nbd+unix:///a%20b?socket=${server.socketPath}`);
    return Promise.resolve();
  });
});

test.run();
