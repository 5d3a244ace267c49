// An export that may be killed: node export-victim.mjs SOCKET DEVICE KIND TARGET STORES, whose snapshot is freed however
// small the device is.
import { dirname } from "node:path";
import { BlksnapClient } from "@blksnap/client";
import { BackupStore, exportRaw, exportToStore } from "../../../packages/backup/dist/index.js";

const LIMIT_BYTES = 2 ** 28;

const [socketPath, device, kind, target, folder] = process.argv.slice(2);
const own = {
  client: new BlksnapClient({ socketPath }),
  hostFolder: dirname(socketPath),
  device,
  stores: [folder],
};
const wanted = { kind: "auto" };
const options = { ...own, wanted, limitBytes: LIMIT_BYTES, freesMinBytes: 0 };
if (kind === "raw") await exportRaw({ ...options, target });
else await exportToStore(await BackupStore.openOrCreate(target), options);
