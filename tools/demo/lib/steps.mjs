/** What both demos do, with devices and with NBD exports. */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";

/** Real files for two volumes: what npm installed for this project. */
export const CONTENTS = [
  { name: "programs", matches: (name) => /\.[cm]?js$/.test(name) },
  { name: "texts", matches: (name) => /\.(md|txt|json|ts)$|^LICENSE$/.test(name) },
];

export function must(condition, message) {
  if (!condition) throw new Error(message);
}

export function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

export function makeFolder(cleanup, prefix) {
  const folder = mkdtempSync(prefix);
  cleanup.add(folder, () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Exports the device to a copy that is updated in place, and compares the copy with what was exported. */
export async function backUp({ screen, product, folder }, device, title) {
  screen.step(title);
  const backup = join(folder, "programs.backup");
  const words = ["--device", device, "--to", backup, "--raw", "--auto", "--file", folder];
  const said = await product.ctl(["export", ...words, "--limit", "64M"]);
  const summary = /^(full|incremental): .*/m.exec(said)?.[0];
  must(summary !== undefined, "the export does not say what it has read");
  const verified = await product.ctl(["verify", "--from", backup]);
  must(/^verified: /m.test(verified), "the backup was not verified");
  return { backup, summary };
}
