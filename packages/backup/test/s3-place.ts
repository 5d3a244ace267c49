/** A bucket of the tests' server, and a machine that is backed up there. */
import { FakeS3 } from "@blksnap/testing";
import type { ExportOptions } from "../dist/export-store.js";
import type { Objects } from "../dist/objects.js";
import { openS3, type S3Options } from "../dist/s3-objects.js";
import { FakeMachine, MIB } from "./fake-machine.js";

export const BUCKET = "backups";
/** Two whole chunks and a part. */
const CAPACITY_BYTES = 8 * MIB + 196_608;
const PLACE = `s3://${BUCKET}/all/hosts`;
export const LIMITS = { delayMs: 1, answerMs: 5_000, attempts: 9 };

export function optionsOf(machine: FakeMachine, more: Partial<ExportOptions> = {}): ExportOptions {
  const { client, device } = machine;
  const own = { client, device, stores: ["/var/tmp"], limitBytes: MIB, host: "here" };
  return { ...own, wanted: { kind: "auto" }, ...more };
}

export function place(s3: FakeS3, more: S3Options = {}): Objects {
  return openS3(PLACE, { environment: s3.environment, limits: LIMITS, ...more });
}

export async function withS3(
  use: (s3: FakeS3, machine: FakeMachine) => Promise<void>,
): Promise<void> {
  const s3 = await FakeS3.listen();
  const machine = new FakeMachine(CAPACITY_BYTES);
  try {
    await use(s3, machine);
  } finally {
    s3.close();
    machine.remove();
  }
}
