// An export that may be killed: node export-victim.mjs SOCKET DEVICE KIND TARGET STORES, whose snapshot is freed however
// small the device is.
import { dirname } from "node:path";
import { BlksnapClient } from "@blksnap/client";

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
// Only what this export needs: a guest spends most of a short export on modules.
const backup = (name) => import(`../../../packages/backup/dist/${name}.js`);
if (kind === "raw") {
  const { exportRaw } = await backup("export-raw");
  await exportRaw({ ...options, target });
} else {
  const [{ BackupStore }, { exportToStore }] = [
    await backup("store"),
    await backup("export-store"),
  ];
  await exportToStore(await BackupStore.openOrCreate(target), options);
}
