/** Tests that need something of the machine: without it they are counted as skipped, and fail where CI is set. */
import { spawnSync } from "node:child_process";

type AddTest = (name: string, body: () => Promise<void> | void) => void;

/** Why a test that has to be root cannot run; undefined: it can. */
export function lacksRoot(): string | undefined {
  return process.geteuid?.() === 0 ? undefined : "not root";
}

/** Why a test that runs these programs cannot run; undefined: it can. */
export function lacksPrograms(...programs: string[]): string | undefined {
  const missing = programs.filter((program) => spawnSync(program, ["-V"]).error !== undefined);
  return missing.length === 0 ? undefined : `${missing.join(", ")} not installed`;
}

/**
 * What adds a test to a suite if the machine has what the test needs, and else skips it loudly.
 *
 * @param test of uvu, or a suite
 * @param lack why it cannot run, by `lacksRoot` or `lacksPrograms`
 * @throws {Error} the test cannot run, and CI is set: there, everything must run
 */
export function testUnless(test: AddTest & { skip: AddTest }, lack: string | undefined): AddTest {
  if (lack === undefined) return test;
  if (process.env["CI"]) throw new Error(`CI cannot run all tests: ${lack}`);
  return (name, body): void => {
    console.error(`SKIPPED: ${name}: ${lack}`);
    test.skip(name, body);
  };
}
