import { addPartitions } from "@blksnap/ublk";
import type { Logger } from "pino";

/** Makes the partitions of a front or an image. Never fails: the device is as good without them. */
export async function makePartitions(device: string, logger: Logger): Promise<void> {
  try {
    await addPartitions(device);
  } catch (error) {
    const text = `${(error as Error).message}; see partx(8)`;
    logger.warn({ device, err: error }, text);
  }
}
