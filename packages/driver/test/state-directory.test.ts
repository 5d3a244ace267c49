import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { StateDirectory } from "../dist/state/state-directory.js";

function withDirectory(use: (state: StateDirectory, path: string) => void): void {
  const path = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const state = new StateDirectory(path);
  try {
    use(state, path);
  } finally {
    state.close();
    rmSync(path, { recursive: true });
  }
}

test("a map that does not fit into memory is refused before anything is written", () => {
  withDirectory((state, path) => {
    const before = readdirSync(path);
    assert.throws(
      () => state.createMap("area-1", 2 ** 52),
      (error: Error & { code?: string }) =>
        error.code === "OUT_OF_MEMORY" && /it takes 4503599627370496 bytes/.test(error.message),
    );
    assert.equal(readdirSync(path), before);
    state.removeMap(state.createMap("area-1", 4096));
  });
});

test("a record is read back, replaced and removed", () => {
  withDirectory((state) => {
    state.writeRecord("tracker-1", { id: 1 });
    state.writeRecord("tracker-1", { id: 2 });
    assert.equal(state.readRecords("tracker-"), [{ name: "tracker-1", value: { id: 2 } }]);
    state.removeRecord("tracker-1");
    state.removeRecord("tracker-1");
    assert.equal(state.readRecords("tracker-"), []);
  });
});

test("every damaged byte, every cut and a newer version are named, and other records still read", () => {
  withDirectory((state, path) => {
    state.writeRecord("tracker-1", { device: "/dev/vg/one" });
    state.writeRecord("tracker-2", { device: "/dev/vg/two" });
    const file = join(path, "tracker-1.record");
    const whole = readFileSync(file);
    for (let at = 0; at < whole.length; at++) {
      for (const bit of [1, 128]) {
        const damaged = Buffer.from(whole);
        damaged[at] ^= bit;
        writeFileSync(file, damaged);
        const [first, second] = state.readRecords("tracker-");
        assert.ok(first?.problem, `byte ${at} ^ ${bit} went unnoticed`);
        assert.equal(second?.problem, undefined);
      }
    }
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(file, whole);
      truncateSync(file, length);
      assert.ok(state.readRecords("tracker-1")[0]?.problem, `cut at ${length} went unnoticed`);
    }
    writeFileSync(file, whole.toString().replace("blksnap-record 1", "blksnap-record 2"));
    assert.match(state.readRecords("tracker-1")[0]?.problem ?? "", "version 2");
  });
});

test("a second owner is refused by name, and may have it after the first has gone", () => {
  const path = mkdtempSync(join(tmpdir(), "blksnap-state-"));
  const first = new StateDirectory(path);
  try {
    assert.throws(
      () => new StateDirectory(path),
      (error: Error & { code?: string }) => error.code === "ALREADY_RUNNING",
    );
    first.close();
    new StateDirectory(path).close();
  } finally {
    rmSync(path, { recursive: true });
  }
});

test("a map file is made empty, found again and removed", () => {
  withDirectory((state, path) => {
    const made = state.createMap("cbt-1", 8192);
    const again = state.openMap("cbt-1");
    assert.is(again.lengthBytes, 8192);
    assert.ok(readFileSync(join(path, "cbt-1")).every((byte) => byte === 0));
    state.removeMap(made);
    assert.not.ok(existsSync(join(path, "cbt-1")));
    assert.throws(() => state.openMap("cbt-1"), "ENOENT");
  });
});

test.run();
