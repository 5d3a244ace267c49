import { readFileSync } from "node:fs";

/** Version of the kernel module's interface whose semantics this driver has. */
export const INTERFACE_VERSION = "2.0.0.0";

/** Found by its name: in the daemon's bundle, modules are elsewhere. */
export const MANIFEST_URL: URL = new URL(import.meta.resolve("@blksnap/driver/package.json"));

const manifest = JSON.parse(readFileSync(MANIFEST_URL, "utf8")) as { version: string };

/** Version of this package and of blksnapd. */
export const DAEMON_VERSION: string = manifest.version;
