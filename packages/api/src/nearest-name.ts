/** Suggests the name that a mistyped one may have meant. */

/** Largest edit distance of a suggestion. */
const DISTANCE_MAX = 3;

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = row[j - 1]! + Number(a[i - 1] !== b[j - 1]);
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, substituted));
    }
    row = next;
  }
  return row[b.length]!;
}

/** Undefined where none is near. */
export function nearestName(typed: string, names: readonly string[]): string | undefined {
  let nearest: string | undefined;
  let least = DISTANCE_MAX + 1;
  for (const name of names) {
    if (Math.abs(name.length - typed.length) >= least) continue;
    const changes = distance(typed.toLowerCase(), name);
    // One of another name altogether is not mistyped.
    if (changes >= least || changes >= name.length) continue;
    least = changes;
    nearest = name;
  }
  return nearest;
}
