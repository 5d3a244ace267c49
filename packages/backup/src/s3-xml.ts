/** Reads the few elements of S3's responses: names without attributes, no comments or sections. */

const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
};

function decoded(text: string): string {
  return text.replace(
    /&(?:#x([0-9a-f]{1,6})|#([0-9]{1,7})|(amp|lt|gt|quot|apos));/gi,
    (all, hex, decimal, name) => {
      if (name !== undefined) return ENTITIES[name.toLowerCase()] ?? all;
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : all;
    },
  );
}

/** Content of the first element with this name; undefined if there is none. */
export function textIn(xml: string, name: string): string | undefined {
  const [begin, end] = [`<${name}>`, `</${name}>`];
  const from = xml.indexOf(begin);
  const to = xml.indexOf(end, from);
  return from < 0 || to < 0 ? undefined : decoded(xml.slice(from + begin.length, to));
}

/** Content of each element with this name, unescaped. */
export function elementsIn(xml: string, name: string): readonly string[] {
  const [begin, end] = [`<${name}>`, `</${name}>`];
  const found: string[] = [];
  for (let from = xml.indexOf(begin); from >= 0; ) {
    const to = xml.indexOf(end, from);
    if (to < 0) break;
    found.push(xml.slice(from + begin.length, to));
    from = xml.indexOf(begin, to);
  }
  return found;
}
