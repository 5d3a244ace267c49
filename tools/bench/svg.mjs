// Results as a drawing: a bar for each candidate's median, a line from its least to its largest value. What is ours is blue.
import { median, number } from "./report.mjs";

const OURS = /front|file target|blksnap|snapshot, state disk|persistent|devices/;
const OUR_COLOR = "#4477aa";
const PEER_COLOR = "#bbbbbb";
const BAR_HEIGHT = 14;
const LABEL_WIDTH = 150;
const BARS_WIDTH = 520;
const WIDTH = LABEL_WIDTH + BARS_WIDTH + 90;

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

function text(x, y, content, more = "") {
  return `<text x="${x}" y="${y}" ${more}>${escaped(content)}</text>`;
}

/** @returns {{parts: string[], height: number}} */
function loadSvg({ name, values }, unit, top) {
  const candidates = Object.keys(values);
  const scale = BARS_WIDTH / Math.max(...Object.values(values).flat());
  const parts = [text(4, top + 14, `${name} (${unit})`, 'font-weight="bold"')];
  for (const [index, candidate] of candidates.entries()) {
    const y = top + 22 + index * (BAR_HEIGHT + 4);
    const value = median(values[candidate]);
    const color = OURS.test(candidate) ? OUR_COLOR : PEER_COLOR;
    const size = `width="${(value * scale).toFixed(1)}" height="${BAR_HEIGHT}"`;
    const [from, to] = [Math.min(...values[candidate]), Math.max(...values[candidate])].map(
      (bound) => (LABEL_WIDTH + bound * scale).toFixed(1),
    );
    const middle = y + BAR_HEIGHT / 2;
    parts.push(
      text(4, y + 11, candidate),
      `<rect x="${LABEL_WIDTH}" y="${y}" ${size} fill="${color}"/>`,
      `<line x1="${from}" x2="${to}" y1="${middle}" y2="${middle}" stroke="#000"/>`,
      text(LABEL_WIDTH + BARS_WIDTH + 6, y + 11, number(value)),
    );
  }
  return { parts, height: 34 + candidates.length * (BAR_HEIGHT + 4) };
}

/** An SVG document with all loads, one below the other. */
export function resultsSvg({ groups }) {
  const parts = [];
  let top = 0;
  for (const { unit, loads } of groups) {
    for (const load of loads) {
      const drawn = loadSvg(load, unit, top);
      parts.push(...drawn.parts);
      top += drawn.height;
    }
  }
  const open = `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${top}"`;
  const background = `<rect width="${WIDTH}" height="${top}" fill="#fff"/>`;
  const names = groups.flatMap(({ loads }) => loads.map(({ name }) => name));
  const title = `<title>${escaped(names.join("; "))}</title>`;
  const body = [title, background, ...parts].join("\n");
  return `${open} font-family="sans-serif" font-size="12">\n${body}\n</svg>\n`;
}
