import * as fs from "node:fs";
import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { LockType, tryLockFile } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { onBoth, onMachine, outcome } from "./both.js";

const { O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_NOFOLLOW, O_DIRECTORY } = fs.constants;
const readPart = promisify(fs.read);

test("calls on paths succeed or fail like the real ones", async () => {
  await onBoth(({ folder, saw }) => {
    const at = (name: string): string => join(folder, name);
    const says = (what: string, call: () => unknown): void => saw(what, outcome(call));
    says("open nothing", () => fs.openSync(at("none"), "r"));
    says("stat nothing", () => fs.statSync(at("none")));
    fs.mkdirSync(at("dir"));
    says("mkdir again", () => fs.mkdirSync(at("dir")));
    says("mkdir below nothing", () => fs.mkdirSync(at("none/dir")));
    says("all of it", () => fs.mkdirSync(at("dir/a/b"), { recursive: true }) === at("dir/a"));
    says("rmdir", () => fs.rmdirSync(at("dir")));
    says("unlink a folder", () => fs.unlinkSync(at("dir/a/b")) === undefined);
    says("rmdir", () => fs.rmdirSync(at("dir/a/b")));
    fs.writeFileSync(at("file"), "some text");
    says("through a file", () => fs.statSync(at("file/x")));
    says("new only", () => fs.openSync(at("file"), O_RDWR | O_CREAT | O_EXCL));
    says("a file as a folder", () => fs.openSync(at("file"), O_DIRECTORY));
    says("a folder for writing", () => fs.openSync(at("dir"), O_RDWR));
    says("readdir of a file", () => fs.readdirSync(at("file")));
    says("no link", () => fs.readlinkSync(at("file")));
    fs.symlinkSync("file", at("link"));
    fs.symlinkSync("loop", at("loop"));
    says("a link", () => fs.readFileSync(at("link"), "utf8"));
    says("where to", () => fs.readlinkSync(at("link")));
    says("really", () => fs.realpathSync(at("link")) === fs.realpathSync(at("file")));
    says("not followed", () => fs.openSync(at("link"), O_RDWR | O_NOFOLLOW));
    says("a link again", () => fs.symlinkSync("x", at("link")));
    says("a loop", () => fs.readFileSync(at("loop")));
    says("names", () => fs.readdirSync(folder).sort());
    fs.writeFileSync(at("other"), "other");
    fs.renameSync(at("other"), at("file"));
    says("renamed", () => [fs.readFileSync(at("file"), "utf8"), fs.existsSync(at("other"))]);
    says("rename nothing", () => fs.renameSync(at("none"), at("file")));
    says("rm nothing", () => fs.rmSync(at("none")));
    says("rm nothing by force", () => fs.rmSync(at("none"), { force: true }));
    says("kinds", () => {
      const status = [fs.statSync(at("file")), fs.statSync(at("dir")), fs.lstatSync(at("link"))];
      return status.map((one) => [one.isFile(), one.isDirectory(), one.isSymbolicLink()]);
    });
    says("big", () => typeof fs.statSync(at("file"), { bigint: true }).mtimeNs);
  });
});

test("descriptors read and write at their position, and at given ones", async () => {
  await onBoth(async ({ folder, saw }) => {
    const path = join(folder, "file");
    const fd = fs.openSync(path, O_RDWR | O_CREAT | O_TRUNC, 0o600);
    saw("written", fs.writeSync(fd, Buffer.from("0123456789")));
    const part = Buffer.alloc(4);
    saw("read", [fs.readSync(fd, part, 0, 4, 8), part.toString()]);
    saw("at the end", fs.readSync(fd, part, 0, 4, null));
    saw("a text", fs.writeSync(fd, "ab", 3));
    saw("a text at the end", fs.writeSync(fd, "cd"));
    saw("so far", fs.readFileSync(path, "utf8"));
    fs.ftruncateSync(fd, 5);
    saw("size", fs.fstatSync(fd).size);
    saw("beside", await readPart(fd, part, 0, 4, 1).then(({ bytesRead }) => bytesRead));
    fs.unlinkSync(path);
    saw("links", fs.fstatSync(fd).nlink);
    saw("without a name", [fs.readSync(fd, part, 0, 4, 0), part.toString()]);
    fs.closeSync(fd);
    saw(
      "closed",
      outcome(() => fs.readSync(fd, part, 0, 4, 0)),
    );
  });
});

test("handles behave like descriptors", async () => {
  await onBoth(async ({ folder, saw }) => {
    const handle = await open(join(folder, "file"), "w+", 0o600);
    await handle.writeFile("some text");
    saw("size", (await handle.stat()).size);
    const part = new Uint8Array(20);
    saw("read", (await handle.read(part, 0, 20, 5)).bytesRead);
    saw("a text in its place", (await handle.write("TEXT", 5)).bytesWritten);
    saw("a part of bytes", (await handle.write(Buffer.from("abcdef"), 2, 3, 1)).bytesWritten);
    saw("so far", await readFile(join(folder, "file"), "utf8"));
    await handle.sync();
    await handle.truncate(4);
    await handle.close();
    saw("closed", handle.fd);
    saw("text", await readFile(join(folder, "file"), "utf8"));
    await rename(join(folder, "file"), join(folder, "other"));
    saw("names", await readdir(folder));
    await rm(join(folder, "other"), { force: true });
    saw("gone", await stat(join(folder, "other")).catch(({ code }) => code));
  });
});

test("locks belong to open files, and end with them", async () => {
  await onBoth(({ folder, saw }) => {
    const path = join(folder, "file");
    fs.writeFileSync(path, "");
    const [one, other] = [fs.openSync(path, O_RDWR), fs.openSync(path, O_RDWR)];
    saw("one", tryLockFile(one));
    saw("again", tryLockFile(one));
    saw("other", tryLockFile(other));
    saw("other reads", tryLockFile(other, LockType.READ));
    fs.closeSync(one);
    saw("freed", tryLockFile(other));
    fs.closeSync(other);
  });
});

test("paths that are not simulated lead to the real files", async () => {
  await onMachine(async () => {
    assert.ok(fs.readFileSync(new URL(import.meta.url), "utf8").includes("lead to the real"));
    assert.is(
      outcome(() => fs.readFileSync("/etc/passwd")),
      "ENOENT",
    );
  });
});

test.run();
