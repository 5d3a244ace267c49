import { spawnSync } from "node:child_process";
import { ReactorThread, threadId, type UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { eventually, openDescriptors } from "./support.js";

const MODULE = new URL("./workers/reactor.js", import.meta.url);

interface Started {
  readonly thread: ReactorThread;
  readonly messages: unknown[];
  readonly exits: (Error | undefined)[];
}

function start(options: unknown = {}): Started {
  const messages: unknown[] = [];
  const exits: (Error | undefined)[] = [];
  const thread = new ReactorThread(
    MODULE,
    options,
    (message) => messages.push(message),
    (error) => exits.push(error),
  );
  return { thread, messages, exits };
}

test("messages wake the reactor on its own thread, and stop ends it", async () => {
  const { thread, messages, exits } = start();
  for (let i = 0; i < 100; i++) thread.post(i);
  await eventually("it is told", () => messages.length === 100);
  const answers = messages as { echo: number; thread: number }[];
  assert.equal(
    answers.map(({ echo }) => echo),
    Array.from({ length: 100 }, (_, i) => i),
  );
  assert.is.not(answers[0].thread, threadId());
  await thread.stop("stop");
  assert.equal(exits, [undefined]);
  await thread.stop("stop");
  const closed = (error: UringError): boolean => error.code === "REACTOR_FAILED";
  assert.throws(() => thread.post(1), closed);
});

test("a program that is passed on the command line can have reactors", () => {
  for (const inputType of [["--input-type=module"], ["--input-type", "module"]]) {
    const program = `
      import { ReactorThread } from "@blksnap/uring";
      const thread = new ReactorThread(new URL("${MODULE}"), {}, () => {}, () => {});
      await thread.stop("stop");
      console.log("stopped");
    `;
    const { stdout, stderr } = spawnSync(process.execPath, [...inputType, "-e", program], {
      encoding: "utf8",
      timeout: 200_000,
    });
    assert.is(stdout, "stopped\n", stderr);
  }
});

test("ten starts and stops leave no descriptor behind", async () => {
  const first = start();
  await first.thread.stop("stop");
  const before = openDescriptors();
  for (let i = 0; i < 10; i++) {
    const { thread, exits } = start();
    await thread.stop("stop");
    assert.equal(exits, [undefined]);
  }
  assert.is(openDescriptors(), before);
});

test("a failed worker is reported with its error, and so is one that ends by itself", async () => {
  const failed = start("fail");
  await eventually("it is told", () => failed.exits.length === 1);
  assert.match(failed.exits[0]?.message ?? "", "failed to start");
  await failed.thread.stop("stop");

  const dying = start();
  dying.thread.post("die");
  await eventually("it is told", () => dying.exits.length === 1);
  assert.match(dying.exits[0]?.message ?? "", "code 3");
});

test("options that cannot be sent leave no descriptor behind", () => {
  const before = openDescriptors();
  assert.throws(() => start({ options: () => undefined }), /could not be cloned/);
  assert.is(openDescriptors(), before);
});

test.run();
