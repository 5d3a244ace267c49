/** Removal of stale state, on a medium that fails for a while. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { LastingRemoval } from "../../dist/records/lasting-removal.js";

const SOON_MS = 1;
/** The removal itself keeps no process alive. */
const alive = setInterval(() => undefined, 1000);
test.after(() => clearInterval(alive));

test("a removal is retried until it succeeds, and reports why it has not", async () => {
  const removal = new LastingRemoval({ isClosed: false }, SOON_MS);
  assert.is(removal.problem, undefined);
  const problems: (string | undefined)[] = [];
  await removal.run(async () => {
    problems.push(removal.problem?.message);
    if (problems.length < 3) throw new Error(`failure ${problems.length}`);
  });
  assert.equal(problems, ["the medium does not answer", "failure 1", "failure 2"]);
  assert.is(removal.problem, undefined);
});

test("a removal ends with the directory, which belongs to another daemon then", async () => {
  const directory = { isClosed: false };
  let attempts = 0;
  const removing = new LastingRemoval(directory, SOON_MS).run(async () => {
    attempts++;
    directory.isClosed = true;
    throw new Error("its last");
  });
  assert.is(await removing.catch((error: Error) => error.message), "its last");
  assert.is(attempts, 1);
});

test.run();
