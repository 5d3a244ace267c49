import { constants } from "node:os";
import * as errors from "@blksnap/errors";
import {
  allOf,
  BlksnapError,
  describeFailure,
  errnoName,
  errnoNameOf,
  errnoNumber,
  messageOf,
} from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";

class DiskError extends BlksnapError<"DISK_FULL" | "DISK_GONE"> {}

test("an error carries its class, code, positive errno with its name, hint and cause", () => {
  const cause = new Error("below");
  const error = new DiskError("DISK_FULL", "cannot write", {
    errno: -28,
    hint: "Free some",
    cause,
  });
  assert.instance(error, Error);
  assert.instance(error, BlksnapError);
  const { name, code, errno, hint, message } = error;
  assert.equal(
    { name, code, errno, errnoName: error.errnoName, hint, message, cause: error.cause },
    {
      name: "DiskError",
      code: "DISK_FULL",
      errno: 28,
      errnoName: "ENOSPC",
      hint: "Free some",
      message: "cannot write",
      cause,
    },
  );
  const bare = new DiskError("DISK_GONE", "it is gone");
  assert.equal([bare.errno, bare.errnoName, bare.hint], [0, undefined, undefined]);
  assert.not("cause" in bare);
});

test("a foreign error is described by its number, else by its name, else as EIO", () => {
  assert.is(errnoNameOf({ errno: -28, code: "EACCES" }), "ENOSPC");
  assert.is(errnoNameOf({ code: "EWOULDBLOCK" }), "EAGAIN");
  assert.is(errnoNameOf({ errno: 530, code: "ENOENT" }), "ENOENT");
  assert.is(errnoNameOf({ code: "ERR_ASSERTION" }), "EIO");
  assert.is(errnoNameOf(undefined), "EIO");
  assert.is(messageOf(new Error("text")), "text");
  assert.is(messageOf(7), "7");
  const error = Object.assign(new Error("ENOENT: ENOENT: stat /x"), { code: "ENOENT" });
  assert.is(describeFailure(error), "ENOENT: stat /x");
});

test("an errno of either sign has its name", () => {
  assert.is(errnoName(16), "EBUSY");
  assert.is(errnoName(-2), "ENOENT");
  assert.is(errnoName(530), "errno 530");
  assert.is(errnoName(41), "errno 41");
  assert.is(errnoName(15), "ENOTBLK");
});

test("each number that the system knows has one name, and each name leads back to its number", () => {
  const names = new Map<number, string>();
  for (const [name, number] of Object.entries(constants.errno)) {
    assert.is(errnoNumber(name), number, name);
    assert.is(errnoNumber(errnoName(number)), number, name);
    assert.is(names.get(number) ?? errnoName(-number), errnoName(number));
    names.set(number, errnoName(number));
  }
  assert.is(new Set(names.values()).size, names.size);
  assert.is(errnoName(constants.errno.EWOULDBLOCK), "EAGAIN");
  assert.is(errnoName(constants.errno.ENOTSUP), "EOPNOTSUPP");
  assert.is(errnoNumber("ENOSUCHNAME"), undefined);
});

test("the constants are the table's numbers", () => {
  const constantNames = Object.keys(errors).filter((name) => /^E[A-Z]+$/.test(name));
  assert.ok(constantNames.length > 0);
  for (const name of constantNames) {
    assert.is((errors as Record<string, unknown>)[name], errnoNumber(name), name);
  }
});

test("allOf answers with all results, or throws the first failure when all have ended", async () => {
  assert.equal(await allOf([Promise.resolve(1), Promise.resolve("two")]), [1, "two"]);
  let isEnded = false;
  const slow = new Promise((done) => setImmediate(done)).then(() => {
    isEnded = true;
  });
  const failures = ["first", "second"].map((text) => Promise.reject(new Error(text)));
  const failure = await allOf([...failures, slow]).catch((error) => error);
  assert.equal([failure.message, isEnded], ["first", true]);
});

test.run();
