/**
 * Puts what every tarball needs and the repository has once into the calling package: LICENSE, and the
 * notices of what others wrote and the package contains. npm runs it before it packs.
 */
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";

if (process.env.npm_command === "publish") {
  console.error("prepack: the tarballs are published by `npm run release`, with what is checked");
  process.exit(1);
}
copyFileSync("../../LICENSE", "LICENSE");
// What is compiled in, and what is bundled.
const texts = ["native/third-party-notices.txt", "dist/third-party-notices.txt"]
  .filter((path) => existsSync(path))
  .map((path) => readFileSync(path, "utf8"))
  .filter((text) => text !== "");
const { name } = JSON.parse(readFileSync("package.json", "utf8"));
if (texts.length === 0) texts.push(`${name} contains no code of others.\n`);
writeFileSync("THIRD-PARTY-NOTICES.txt", texts.join("\n"));
