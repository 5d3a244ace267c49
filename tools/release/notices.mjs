/** Names, licences and licence texts of npm packages whose code is shipped inside of one of ours. */
import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

const LICENCE_FILE = /^(licen[cs]e|copying|notice)(\b|\.|$)/i;
const RULE = "-".repeat(80);

function licenceTexts(folder) {
  return readdirSync(folder)
    .filter((name) => LICENCE_FILE.test(name))
    .map((name) => readFileSync(join(folder, name), "utf8").trim());
}

function noticeOf(folder) {
  const { name, version, license, author } = JSON.parse(
    readFileSync(join(folder, "package.json"), "utf8"),
  );
  if (typeof license !== "string") throw new Error(`${folder}: package.json names no licence`);
  const texts = licenceTexts(folder);
  const by = typeof author === "string" ? author : author?.name;
  // Some packages have their licence by name only.
  if (texts.length === 0) texts.push(`Licence: ${license}. Author: ${by ?? basename(folder)}.`);
  return `${name} ${version} (${license})\n\n${texts.join("\n\n")}\n`;
}

/**
 * @param {string[]} folders of packages
 * @returns {string} one notice after the other; empty for none
 */
export function noticesOf(folders) {
  return folders.map(noticeOf).join(`\n${RULE}\n\n`);
}
