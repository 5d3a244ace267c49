/** Priorities for the journal, and only there. */
import { spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { socketPair } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isJournal, LineWriter, logTo } from "../dist/log.js";
import { program } from "./daemon-program.js";

const MISSING = /^\{.*"lines":[0-9]+,"msg":"lines of this log are missing: EAGAIN"\}$/;
const LINE = `${"f".repeat(1000)}\n`;

/** What `body` writes to a file whose descriptor it gets. */
function written(body: (fd: number) => void): string {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-log-"));
  const path = join(folder, "log");
  const fd = openSync(path, "w");
  try {
    body(fd);
    return readFileSync(path, "utf8");
  } finally {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  }
}

/** In systemd's notation of the file that it has opened. */
function journalStream(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

function sayAll(fd: number, withPriorities: boolean): void {
  const logger = logTo(fd, "trace", withPriorities);
  for (const level of ["trace", "debug", "info", "warn", "error", "fatal"] as const) {
    logger[level]({ device: "/dev/vg/data" }, `of level ${level}`);
  }
  // The driver and the API log through such.
  logger.child({ part: "child" }).error("of a child");
}

test("in the journal each line has its priority, before the same JSON", () => {
  const lines = written((fd) => sayAll(fd, true))
    .trimEnd()
    .split("\n");
  assert.equal(
    lines.map((line) => line.slice(0, 3)),
    ["<7>", "<7>", "<6>", "<4>", "<3>", "<2>", "<3>"],
  );
  const { time: _, ...fifth } = JSON.parse((lines[4] as string).slice(3));
  assert.equal(fifth, { level: 50, device: "/dev/vg/data", msg: "of level error" });
  assert.is(JSON.parse((lines[6] as string).slice(3)).part, "child");
});

test("elsewhere a line is only JSON", () => {
  const lines = written((fd) => sayAll(fd, false))
    .trimEnd()
    .split("\n");
  assert.equal(
    lines.map((line) => JSON.parse(line).level),
    [10, 20, 30, 40, 50, 60, 50],
  );
});

test("an unwritable log stops nothing, and missing lines are reported later", () => {
  const full = openSync("/dev/full", "w");
  sayAll(full, false);
  closeSync(full);
  const folder = mkdtempSync(join(tmpdir(), "blksnap-log-"));
  const path = join(folder, "fifo");
  assert.is(spawnSync("mkfifo", [path]).status, 0);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const taken = (most: number): string => {
    const bytes = Buffer.alloc(most);
    return bytes.toString("utf8", 0, readSync(fd, bytes));
  };
  const page = "f".repeat(4096);
  const fill = (): void => {
    for (;;) writeSync(fd, page);
  };
  const logger = logTo(fd, "info", true);
  assert.throws(fill, /EAGAIN/);
  logger.info("lost");
  // Of a line longer than a page, only a part is taken.
  assert.is(taken(page.length), page);
  logger.info("y".repeat(10_000));
  const [told = "", torn = ""] = taken(2 ** 20)
    .replace(/^f+/, "")
    .split("\n");
  const missing = (line: string): object => {
    const { time: _, ...rest } = JSON.parse(line.replace("<4>", ""));
    return rest;
  };
  const one = { level: 40, lines: 1, msg: "lines of this log are missing: EAGAIN" };
  assert.equal(missing(told), one);
  assert.match(torn, /^<6>{.*y$/);
  logger.error("there again");
  const [end, next = "", last = ""] = taken(2 ** 20).split("\n");
  assert.is(end, "");
  assert.equal(missing(next), one);
  assert.is(JSON.parse(last.replace("<3>", "")).msg, "there again");
  closeSync(fd);
  rmSync(folder, { recursive: true });
});

test("a blocking pipe without a reader stops nothing", () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-log-"));
  const path = join(folder, "fifo");
  assert.is(spawnSync("mkfifo", [path]).status, 0);
  const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const bytes = Buffer.alloc(2 ** 20);
  // A shell passes it to its child like this; with its own end, for a test that hangs.
  const text = `
    const { logTo } = await import(${JSON.stringify(new URL("../dist/log.js", import.meta.url).href)});
    const logger = logTo(2, "info", false);
    for (let line = 0; line < 200; line++) logger.info("f".repeat(1000));
    console.log("all said");`;
  const line = `exec "$0" --input-type=module --eval "$1" 2> ${path}`;
  const ended = spawnSync("sh", ["-c", line, process.execPath, text], { timeout: 60_000 });
  assert.is(ended.stdout.toString(), "all said\n");
  const said = bytes.toString("utf8", 0, readSync(reader, bytes)).split("\n");
  assert.ok(said.length > 10 && said.length < 200, "what there was room for");
  closeSync(reader);
  rmSync(folder, { recursive: true });
});

test("an unread socket of the journal stops nothing; later the number of missing lines is reported", () => {
  const [socket, journald] = socketPair();
  const text = `
    const { logTo } = await import(${JSON.stringify(new URL("../dist/log.js", import.meta.url).href)});
    const { readSync } = await import("node:fs");
    const { spawnSync } = await import("node:child_process");
    const logger = logTo(2, "info", true);
    // libuv makes this socket block for the child of a supervisor, which shares it.
    spawnSync("true", { stdio: ["ignore", "ignore", "inherit"] });
    for (let line = 0; line < 2000; line++) logger.info("f".repeat(1000));
    console.log("all said");
    for (let left = 2 ** 16; left > 0; ) left -= readSync(3, Buffer.alloc(left));
    logger.error("there again");`;
  const words = ["--input-type=module", "--eval", text];
  const stdio = ["ignore", "pipe", socket, journald] as const;
  const ended = spawnSync(process.execPath, words, { stdio: [...stdio], timeout: 60_000 });
  closeSync(socket);
  assert.is(ended.stdout.toString(), "all said\n");
  const bytes = Buffer.alloc(2 ** 22);
  let length = 0;
  for (let more = 1; more > 0; length += more) more = readSync(journald, bytes, { offset: length });
  closeSync(journald);
  const [missing = "", last = ""] = bytes
    .toString("utf8", 0, length)
    .trimEnd()
    .split("\n")
    .slice(-2);
  assert.match(missing.replace("<4>", ""), MISSING);
  assert.is(JSON.parse(last.replace("<3>", "")).msg, "there again");
});

/** A non-blocking pipe. @returns its descriptor, and a function that drains it */
function pipe(body: (fd: number, taken: () => string, path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-log-"));
  const path = join(folder, "fifo");
  assert.is(spawnSync("mkfifo", [path]).status, 0);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const bytes = Buffer.alloc(2 ** 20);
  body(fd, () => bytes.toString("utf8", 0, readSync(fd, bytes)), path);
  closeSync(fd);
  rmSync(folder, { recursive: true });
}

test("a stalled reader gets time for urgent lines only", () => {
  pipe((fd, taken) => {
    let pauses = 0;
    let takesAt = Number.POSITIVE_INFINITY;
    const writer = new LineWriter(fd, false, () => {
      if (++pauses === takesAt) taken();
    });
    const pausesOf = (write: () => void): number => {
      pauses = 0;
      write();
      return pauses;
    };
    const ordinary = () => writer.write(LINE, 30);
    for (let line = 0; line < 200; line++) ordinary();
    assert.is(pausesOf(ordinary), 0);
    takesAt = 7;
    assert.is(
      pausesOf(() => writer.write("the end\n", 60)),
      7,
    );
    const lines = taken().trimEnd().split("\n");
    // The torn line has no end.
    assert.match(lines.at(-2) ?? "", MISSING);
    assert.is(lines.at(-1), "the end");
    takesAt = Number.POSITIVE_INFINITY;
    for (let line = 0; line < 200; line++) ordinary();
    const all = pausesOf(() => {
      for (let line = 0; line < 50; line++) writer.write("a complaint\n", 50, true);
    });
    assert.is(all, 100, "a reader that never comes is given up");
    taken();
    writer.end();
    assert.match(taken().trimEnd().split("\n").at(-1) ?? "", MISSING);
  });
});

test("at any end of the process the number of missing lines is reported, and an error message has its own line", () => {
  const module = (name: string) => JSON.stringify(new URL(`../dist/${name}`, import.meta.url).href);
  for (const end of ["", "process.exit(0)", "endAtOnce(0)", 'complain("why")']) {
    const text = `
      const { openSync, readSync } = await import("node:fs");
      const { complain, stderrLog } = await import(${module("log.js")});
      const { endAtOnce } = await import(${module("process-end.js")});
      const logger = stderrLog("info");
      for (let line = 0; line < 200; line++) logger.info("f".repeat(10_000));
      readSync(openSync(process.argv[1], "r"), Buffer.alloc(2 ** 20));
      ${end}`;
    pipe((_, taken, path) => {
      const line = `exec "$0" --input-type=module --eval "$1" ${path} 2> ${path}`;
      const ended = spawnSync("sh", ["-c", line, process.execPath, text], { timeout: 60_000 });
      const lines = taken().trimEnd().split("\n");
      assert.is(ended.status, 0, `${end}: ${lines.slice(-20).join("\n")}`);
      if (end.startsWith("complain")) assert.is(lines.pop(), "blksnapd: why");
      assert.match(lines.at(-1) ?? "", MISSING, end);
    });
  }
});

test("the journal is recognised as the stream that systemd has opened, not a pipe or file in its place", () => {
  written((fd) => {
    assert.ok(isJournal(fd, { JOURNAL_STREAM: journalStream(fd) }));
    assert.not.ok(isJournal(fd, { JOURNAL_STREAM: "8:1" }));
    assert.not.ok(isJournal(fd, { JOURNAL_STREAM: "" }));
    assert.not.ok(isJournal(fd, {}));
  });
});

test("a message of a failed start is an error in the journal, too", () => {
  const said = (stream: (fd: number) => string) =>
    written((fd) => {
      const env = { PATH: process.env["PATH"], JOURNAL_STREAM: stream(fd) };
      const stdio = ["ignore", "ignore", fd] as const;
      spawnSync(process.execPath, [program, "--log-level", "loud"], { env, stdio: [...stdio] });
    });
  assert.match(said(journalStream), /^<3>blksnapd: --log-level: /);
  assert.match(
    said(() => "8:1"),
    /^blksnapd: --log-level: /,
  );
});

test.run();
