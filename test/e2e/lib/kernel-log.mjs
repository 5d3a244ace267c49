/** The kernel's messages during a test. */
import { writeFileSync } from "node:fs";
import { run } from "./command.mjs";

const ALARMING =
  /BUG|WARNING|Oops|Call Trace|hung task|blocked for more than|I\/O error|lockup|Corruption|EXT4-fs.*(error|warning)|XFS.*[Ee]rror|protection fault|page allocation failure/;

/** Messages of a file system or the block layer when an image goes away under its user. */
export const IMAGE_GONE = [
  /I\/O error, dev ublkb\d+/,
  /Buffer I\/O error on dev(ice)? ublkb\d+/,
  /EXT4-fs (error|warning) \(device ublkb\d+\)/,
  /EXT4-fs \(ublkb\d+\).*error/,
  /XFS \(ublkb\d+\)/,
  /JBD2: .*I\/O error/i,
  /Aborting journal on device ublkb\d+/,
];

let marks = 0;

/** The kernel's messages from a moment on. */
export class KernelLog {
  #mark = `blksnap-e2e: mark ${process.pid}.${++marks}`;

  constructor() {
    writeFileSync("/dev/kmsg", `${this.#mark}\n`);
  }

  async lines() {
    const lines = (await run(["dmesg"])).split("\n");
    const from = lines.findLastIndex((line) => line.includes(this.#mark));
    return lines.slice(from + 1).filter((line) => line !== "");
  }

  /** Fails if a line is alarming that no pattern expects. */
  async assertCalm(expected = []) {
    const alarms = (await this.lines()).filter(
      (line) => ALARMING.test(line) && !expected.some((pattern) => pattern.test(line)),
    );
    if (alarms.length > 0) throw new Error(`kernel messages:\n${alarms.slice(0, 20).join("\n")}`);
  }
}
