/**
 * Finds the line of a key in a TOML file; the parser gives lines only for syntax errors.
 *
 * Keys are named by their path: `daemon.reactors`, `device.0.persistent`. Text in a multi-line string that looks like
 * a key may be mistaken for one: then a message names the wrong line, and nothing else is wrong.
 */

const HEADER = /^\s*(\[{1,2})\s*([^\]]+?)\s*\]/;
const KEY = /^\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=/;

function partsOf(name: string): string[] {
  return [...name.matchAll(/"([^"]*)"|'([^']*)'|([\w-]+)/g)].map(
    ([, double, single, bare]) => double ?? single ?? bare ?? "",
  );
}

export function keyLines(text: string): ReadonlyMap<string, number> {
  const lines = new Map<string, number>();
  const counts = new Map<string, number>();
  const note = (path: string, line: number) => {
    if (!lines.has(path)) lines.set(path, line);
  };
  let table: string[] = [];
  for (const [index, content] of text.split("\n").entries()) {
    const [, brackets, name = ""] = HEADER.exec(content) ?? [];
    const [, key] = KEY.exec(content) ?? [];
    if (brackets !== undefined) {
      table = partsOf(name);
      const path = table.join(".");
      note(path, index + 1);
      if (brackets === "[[") {
        const count = counts.get(path) ?? 0;
        counts.set(path, count + 1);
        table.push(String(count));
        note(table.join("."), index + 1);
      }
    } else if (key !== undefined) {
      const path = [...table];
      for (const part of partsOf(key)) {
        path.push(part);
        note(path.join("."), index + 1);
      }
    }
  }
  return lines;
}
