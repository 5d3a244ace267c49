/** Builds paths of requests with their queries. */
export function query(
  path: string,
  parameters: Record<string, string | number | undefined>,
): string {
  const parts = Object.entries(parameters)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
  return parts.length === 0 ? path : `${path}?${parts.join("&")}`;
}

export function snapshotPath(id: string, rest = ""): string {
  return `/v1/snapshots/${encodeURIComponent(id)}${rest}`;
}
