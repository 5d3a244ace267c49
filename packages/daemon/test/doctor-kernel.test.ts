import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { UblkFeature } from "@blksnap/ublk";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { HostFiles } from "../dist/doctor/host-files.js";
import {
  checkControl,
  checkIoUring,
  checkKernelVersion,
  checkModule,
} from "../dist/doctor/kernel.js";
import { checkFreeze, checkNode, checkPartitions } from "../dist/doctor/surroundings.js";

const root = mkdtempSync(join(tmpdir(), "blksnap-doctor-"));
test.after(() => rmSync(root, { recursive: true }));
const host = new HostFiles(root);

function put(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

test("kernels with known defects are distinguished from others", () => {
  const states = (release: string) => checkKernelVersion(release).map(({ state }) => state);
  assert.equal(states("6.12.57+deb12-cloud-amd64"), ["ok"]);
  assert.equal(states("6.18.44"), ["ok"]);
  assert.equal(states("7.1.2"), ["ok"]);
  assert.equal(states("6.8.1"), ["ok"]);
  assert.equal(states("6.1.0-41-amd64"), ["error"]);
  assert.equal(states("5.15.0-91-generic"), ["error"]);
  assert.equal(states("6.6.30"), ["warning"]);
  assert.equal(states("6.8.0-31-generic"), ["error"]);
  assert.equal(states("6.17.0-1004-aws"), ["error"]);
  assert.equal(states("6.17.0-5-generic"), ["ok"]);
  assert.equal(states("6.18.4"), ["error"]);
  assert.equal(states("6.18.40-generic"), ["warning"]);
  assert.equal(states("7.0.3"), ["warning"]);
  assert.match(checkKernelVersion("6.8.0-31-generic")[0].why ?? "", /CVE-2025-37906/);
  assert.match(checkKernelVersion("6.8.0-31-generic")[0].hint ?? "", /6\.15/);
});

test("a module is loaded, loadable or missing", () => {
  assert.is(checkModule(host, () => true).state, "warning");
  assert.is(checkModule(host, () => false).state, "error");
  put("sys/module/ublk_drv/refcnt", "0");
  assert.is(checkModule(host, () => false).state, "ok");
});

test("missing features that are needed are named", () => {
  const all = Object.values(UblkFeature).reduce((bits, bit) => bits | bit, 0);
  assert.equal(
    checkControl({ features: all }, UblkFeature).map(({ state }) => state),
    ["ok", "ok"],
  );
  const [, lacking] = checkControl({ features: all & ~UblkFeature.USER_RECOVERY }, UblkFeature);
  assert.is(lacking.state, "error");
  assert.match(lacking.what, /lacks USER_RECOVERY$/);
  const [refused] = checkControl({ problem: "no", code: "UBLK_NOT_PERMITTED" }, UblkFeature);
  assert.equal([refused.state, refused.hint], ["error", "Run as root"]);
});

test("io_uring is tested, and a sysctl that forbids it is named", () => {
  assert.is(checkIoUring(host, () => undefined).state, "ok");
  assert.match(checkIoUring(host, () => "EPERM").what, /does not work: EPERM/);
  put("proc/sys/kernel/io_uring_disabled", "1\n");
  put("proc/sys/kernel/io_uring_group", "-1\n");
  assert.match(checkIoUring(host, () => undefined).what, /limited to root/);
  put("proc/sys/kernel/io_uring_disabled", "2\n");
  const closed = checkIoUring(host, () => undefined);
  assert.equal([closed.state, /io_uring_disabled is 2/.test(closed.what)], ["error", true]);
});

test("programs of util-linux are looked for", () => {
  put("usr/bin/sh", "");
  put("usr/sbin/fsfreeze", "");
  assert.is(checkFreeze(host).state, "ok");
  const missing = checkPartitions(host);
  assert.equal([missing.state, missing.what], ["warning", "partx is not installed"]);
  put("usr/bin/partx", "");
  assert.is(checkPartitions(host).state, "ok");
});

test("an old node is an error", () => {
  assert.is(checkNode("v20.18.3").state, "error");
  assert.is(checkNode("v18.20.0").state, "error");
  assert.is(checkNode("v20.19.0").state, "ok");
  assert.is(checkNode("v24.1.0").state, "ok");
});

test.run();
