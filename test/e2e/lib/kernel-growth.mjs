/** Whether a front follows an original that grows depends on the kernel. */
import { UblkControl } from "@blksnap/ublk";
import { run } from "./command.mjs";
import { until } from "./wait.mjs";

const control = await UblkControl.open();
/** Linux 6.16 and later can give a ublk device another size. */
export const { canUpdateSize } = control;
control.close();

/** Bytes that users of a block device have. */
export async function sizeOf(path) {
  return Number(await run(["blockdev", "--getsize64", path]));
}

/** Ends when the kernel says that the device is that large. */
export function untilSize(path, sizeBytes) {
  return until(`${path} has ${sizeBytes} bytes`, async () => (await sizeOf(path)) === sizeBytes);
}
