#!/usr/bin/env node
/**
 * Serves a file, or memory, over NBD until interrupted. Needs the path of its socket, and what to serve:
 *
 *   node examples/serve.mjs SOCKET FILE [--writable]
 *   node examples/serve.mjs SOCKET --memory BYTES [--writable]
 */
import { NbdServer } from "@blksnap/nbd";
import { fileTarget, memoryTarget } from "@blksnap/ublk";

const words = process.argv.slice(2).filter((word) => word !== "--writable");
const [socketPath, path, size] = words;
if (path === undefined) {
  console.error("usage: serve.mjs SOCKET FILE|--memory BYTES [--writable]");
  process.exit(1);
}
const readOnly = !process.argv.includes("--writable");
const target =
  path === "--memory"
    ? memoryTarget({ capacityBytes: Number(size) })
    : fileTarget({ path, readOnly });
const server = await NbdServer.start({
  socketPath,
  exports: [{ name: "disk", readOnly, target }],
  onError: (error) => console.error(error.message),
});
console.log(server.uri("disk"));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => server.stop());
await server.ended;
