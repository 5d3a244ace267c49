import { cpSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { errnoName, UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { packageDir, runChild, withFolder } from "./support.js";

test("an errno has its name, from either sign", () => {
  assert.is(errnoName(16), "EBUSY");
  assert.is(errnoName(-2), "ENOENT");
  assert.is(errnoName(530), "errno 530");
});

test("an error carries code, positive errno, message and cause", () => {
  const cause = new Error("below");
  const error = new UringError("MAP_FAILED", "cannot map", -12, cause);
  assert.instance(error, Error);
  assert.is(error.name, "UringError");
  assert.is(error.code, "MAP_FAILED");
  assert.is(error.errno, 12);
  assert.is(error.message, "cannot map (ENOMEM)");
  assert.is(error.cause, cause);
  assert.is(new UringError("RING_CLOSED", "closed").message, "closed");
});

test("a missing addon is an error that says where it was looked for and how to build it", () => {
  withFolder((folder) => {
    cpSync(join(packageDir, "dist"), join(folder, "dist"), { recursive: true });
    cpSync(join(packageDir, "package.json"), join(folder, "package.json"));
    const module = pathToFileURL(join(folder, "dist", "index.js")).href;
    const child = runChild(
      `await import(${JSON.stringify(module)}).catch((e) => console.log(e.code, e.message));`,
    );
    assert.match(child.output, /^ADDON_MISSING .*uring\.node.*npm run build:native/);
  });
});

test.run();
