/**
 * Checks links between the project's documents: the file must exist, and the heading in it. Links to other sites are
 * not checked.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const CODE = /^```[\s\S]*?^```$|`[^`\n]*`/gm;
const LINK = /\]\(([^)\s]+)\)/g;

/** The anchor that GitHub derives from a heading. */
function anchorOf(heading) {
  const plain = heading.replace(/`|\[|\]\([^)]*\)/g, "").toLowerCase();
  return plain.replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");
}

function anchorsOf(path) {
  const text = readFileSync(path, "utf8").replace(/^```[\s\S]*?^```$/gm, "");
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading));
}

export function linkProblems() {
  const listed = execFileSync("git", ["ls-files", "*.md"], { encoding: "utf8" });
  const documents = listed.split("\n").filter((path) => path !== "" && existsSync(path));
  return documents.flatMap((document) => {
    const text = readFileSync(document, "utf8").replace(CODE, "");
    return [...text.matchAll(LINK)].flatMap(([, link]) => {
      if (/^\w+:/.test(link)) return [];
      const [name, anchor] = link.split("#");
      const path = name === "" ? document : normalize(join(dirname(document), name));
      if (!existsSync(path)) return [`${document}: there is no ${path}`];
      if (anchor === undefined || (path.endsWith(".md") && anchorsOf(path).includes(anchor)))
        return [];
      // A folder shows its README.
      const readme = join(path, "README.md");
      if (existsSync(readme) && anchorsOf(readme).includes(anchor)) return [];
      return [`${document}: ${path} has no heading "${anchor}"`];
    });
  });
}
