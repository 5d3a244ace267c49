/**
 * The code of READMEs: each block in JavaScript or TypeScript is a whole module. One that has the word
 * `device` behind its language needs ublk, root and /dev/vg/data: the end-to-end tests run it.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const BLOCK = /^```(js|ts)( device)?\n([\s\S]*?)^```$/gm;
/** A block with another language would be skipped silently. */
const FENCE = /^```(js|ts)\b.*$/gm;

/**
 * @param {string} text of a README
 * @param {string} name for files with its blocks
 * @returns {{ name: string, language: "js" | "ts", needsDevice: boolean, code: string }[]}
 */
export function blocksOf(text, name) {
  const blocks = [...text.matchAll(BLOCK)].map(([, language, device, code], index) => ({
    name: `${name}-${index + 1}`,
    language,
    needsDevice: device !== undefined,
    code,
  }));
  const fences = text.match(FENCE) ?? [];
  if (fences.length !== blocks.length) {
    throw new Error(`${name}: fences are "js", "ts", or these with "device": ${fences.join(", ")}`);
  }
  return blocks;
}

/** The blocks of the READMEs that packages bring along. */
export function blocksOfInstalled(project, names) {
  return names.flatMap((name) => {
    const path = join(project, "node_modules", name, "README.md");
    return blocksOf(readFileSync(path, "utf8"), name.replace(/^@.*\//, ""));
  });
}

/** @returns {string[]} paths of the programs in a package's examples folder, if it has one */
export function programsOf(project, name) {
  const folder = join(project, "node_modules", name, "examples");
  if (!existsSync(folder)) return [];
  return readdirSync(folder).map((file) => join(folder, file));
}
