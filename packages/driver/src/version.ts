import { readFileSync } from "node:fs";

/** Version of the kernel module's interface whose semantics are served. */
export const INTERFACE_VERSION = "2.0.0.0";

const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
};

/** Version of this package and of blksnapd. */
export const DAEMON_VERSION: string = manifest.version;
