/**
 * Checks that no package holds a fifth of the project or more: such a package would collect everything, and its parts
 * could be tested and used only together.
 *
 * Counts lines of the packages' code, with comments and blank lines: TypeScript in `src`, C++ in `native`, scripts in
 * `bin` and `libexec`; including private packages, without tests, examples and build output.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const SHARE_MAX = 0.2;
const FOLDERS = ["src", "native", "bin", "libexec"];
const CODE = /\.(ts|mjs|cc|h|sh)$/;

function linesIn(folder) {
  if (!existsSync(folder)) return 0;
  return readdirSync(folder, { recursive: true })
    .filter((name) => CODE.test(name))
    .map((name) => readFileSync(join(folder, name), "utf8").split("\n").length - 1)
    .reduce((sum, lines) => sum + lines, 0);
}

export function sizeProblems() {
  const packages = readdirSync("packages").map((dir) => ({
    dir,
    lines: FOLDERS.reduce((sum, folder) => sum + linesIn(join("packages", dir, folder)), 0),
  }));
  const all = packages.reduce((sum, { lines }) => sum + lines, 0);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const [biggest] = packages.sort((one, other) => other.lines - one.lines);
  const share = biggest.lines / all;
  const said = `packages/${biggest.dir} has ${percent(share)} of ${all} lines of code`;
  console.log(`lint-layers: the biggest, ${said}`);
  if (share < SHARE_MAX) return [];
  return [
    `${said}, ${percent(SHARE_MAX)} or more: move what knows nothing of it to a package beneath`,
  ];
}
