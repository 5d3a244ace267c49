/** The end of a life of the program. */
import { mkdirSync } from "node:fs";
import { Killed, SimMachine } from "@blksnap/sim-kernel";
import { statInHelper } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";

/** No machine has this folder. */
const FOLDER = "/run/no-such-folder/lives";

test("remaining code of a closed machine's program reaches no other kernel", async () => {
  const machine = new SimMachine({ seed: 1 });
  let met: unknown;
  const program = async (): Promise<void> => {
    // Its process ends with the program, which sees an error.
    await statInHelper("/dev", 1000).catch(() => undefined);
    try {
      mkdirSync(FOLDER);
    } catch (error) {
      met = error;
      throw error;
    }
  };
  const life = machine.start(program).catch((error: unknown) => error);
  await machine.close();
  assert.instance(await life, Killed);
  assert.instance(met, Killed);
});

test.run();
