import { linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { boundedLookup, identityAt } from "@blksnap/linux-block";
import { statInHelper } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

const identityOf = (path: string) => identityAt(path, boundedLookup(statInHelper));

test("every path to a file is the same device, another file is another", async () => {
  const dir = mkdtempSync(join(tmpdir(), "blksnap-identity-"));
  try {
    writeFileSync(join(dir, "a"), "");
    writeFileSync(join(dir, "b"), "");
    symlinkSync("a", join(dir, "soft"));
    linkSync(join(dir, "a"), join(dir, "hard"));
    const identity = await identityOf(join(dir, "a"));
    assert.is(await identityOf(join(dir, "soft")), identity);
    assert.is(await identityOf(join(dir, "hard")), identity);
    assert.is.not(await identityOf(join(dir, "b")), identity);
    const error = await identityOf(join(dir, "none")).catch((reason) => reason);
    assert.equal([error.code, error.errnoName], ["DEVICE_NOT_FOUND", "ENOENT"]);
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test("a path that may not be looked up is not said to be missing", async () => {
  const failing = (code: string) => async () => {
    throw Object.assign(new Error(code), { code });
  };
  const failure = (code: string) =>
    identityAt("/closed/x", failing(code)).catch(({ code: name, message, hint }) => {
      return [name, message, hint !== undefined];
    });
  assert.equal(await failure("EACCES"), [
    "DEVICE_NOT_FOUND",
    "/closed/x cannot be looked up (EACCES)",
    true,
  ]);
  assert.equal(await failure("ENOTDIR"), [
    "DEVICE_NOT_FOUND",
    "/closed/x does not exist (ENOTDIR)",
    false,
  ]);
});

test.run();
