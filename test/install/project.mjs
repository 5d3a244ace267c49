/** A project that has all packages installed from their tarballs. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../../tools/release/manifests.mjs";
import { packAll } from "../../tools/release/pack.mjs";
import { isKeptNewest, keepProject } from "./kept.mjs";
import { startRegistry } from "./registry.mjs";
import { Stranger } from "./stranger.mjs";

/**
 * Packs everything and has a stranger install it from a registry.
 * @param {(world: { stranger: Stranger, tarballs: any[], registry: any }) => Promise<void>} use
 */
export async function withStranger(use) {
  const folder = join(ROOT, ".cache", `tarballs-${process.pid}`);
  let registry;
  let stranger;
  try {
    const tarballs = await packAll(folder);
    registry = await startRegistry(tarballs);
    stranger = new Stranger(registry.url);
    await use({ stranger, tarballs, registry });
  } finally {
    stranger?.end();
    registry?.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @returns {Promise<string>} the folder of a project with all packages */
export async function installAll({ stranger, tarballs }, more = []) {
  const project = stranger.project("all");
  const paths = tarballs.map(({ path }) => path);
  const { status, errors } = await stranger.run(project, ["npm", "install", ...paths, ...more]);
  if (status !== 0) throw new Error(`npm install failed:\n${errors}`);
  return project;
}

/** Has the newest packages installed for the end-to-end tests. */
export async function ensureInstalled() {
  if (isKeptNewest()) return;
  await withStranger(async (world) => keepProject(await installAll(world)));
}
