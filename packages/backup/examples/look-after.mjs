/** Lists the points of a folder of backups, and checks all of them: node look-after.mjs FOLDER */
import { existsSync } from "node:fs";
import { BackupStore, verify } from "@blksnap/backup";

const folder = process.argv[2] ?? "backups";
if (!existsSync(folder)) {
  console.log(`${folder}: no backups yet`);
  process.exit();
}
const store = await BackupStore.open(folder);
const points = await store.points();
for (const { id, device, taken_at, kind } of points) console.log(id, device, taken_at, kind);
const { chunks, damaged } = await verify(store, points);
for (const { why } of damaged) console.error(why);
console.log(`${chunks} chunks, ${damaged.length} damaged`);
process.exitCode = damaged.length === 0 ? 0 : 1;
