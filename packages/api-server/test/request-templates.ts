/** A valid request for each operation of the API, for tests to corrupt. */

export const UNKNOWN_ID = "00000000-0000-4000-8000-000000000000";
const NO_DEVICE = "/dev/none";

export interface Template {
  readonly method: string;
  readonly route: string;
  readonly path: string;
  readonly body?: Readonly<Record<string, unknown>>;
}

const query = `device=${NO_DEVICE}`;

/** A request for each operation: valid in form, for objects that do not exist. */
export const templates: readonly Template[] = [
  { method: "POST", route: "/v1/trackers", path: "/v1/trackers", body: { device: NO_DEVICE } },
  { method: "DELETE", route: "/v1/trackers", path: `/v1/trackers?${query}` },
  { method: "GET", route: "/v1/trackers", path: `/v1/trackers?${query}` },
  { method: "GET", route: "/v1/trackers/snapshot", path: `/v1/trackers/snapshot?${query}` },
  { method: "GET", route: "/v1/trackers/cbt", path: `/v1/trackers/cbt?${query}` },
  {
    method: "GET",
    route: "/v1/trackers/cbt/map",
    path: `/v1/trackers/cbt/map?${query}&first_block=0&block_count=1`,
  },
  { method: "GET", route: "/v1/trackers/cbt/diff", path: `/v1/trackers/cbt/diff?${query}&since=0` },
  {
    method: "POST",
    route: "/v1/trackers/cbt/dirty",
    path: "/v1/trackers/cbt/dirty",
    body: { device: NO_DEVICE, ranges: [{ offset_bytes: 0, length_bytes: 4096 }] },
  },
  {
    method: "POST",
    route: "/v1/trackers/cbt/dirty_file",
    path: "/v1/trackers/cbt/dirty_file",
    body: { file: "/missing" },
  },
  {
    method: "POST",
    route: "/v1/snapshots",
    path: "/v1/snapshots",
    body: { devices: [NO_DEVICE], stores: ["/missing"], limit_bytes: 2 ** 30 },
  },
  {
    method: "POST",
    route: "/v1/snapshots/{id}/devices",
    path: `/v1/snapshots/${UNKNOWN_ID}/devices`,
    body: { device: NO_DEVICE },
  },
  {
    method: "POST",
    route: "/v1/snapshots/{id}/take",
    path: `/v1/snapshots/${UNKNOWN_ID}/take`,
  },
  { method: "GET", route: "/v1/snapshots/{id}", path: `/v1/snapshots/${UNKNOWN_ID}` },
  { method: "DELETE", route: "/v1/snapshots/{id}", path: `/v1/snapshots/${UNKNOWN_ID}` },
  {
    method: "GET",
    route: "/v1/snapshots/{id}/events",
    path: `/v1/snapshots/${UNKNOWN_ID}/events?timeout_ms=1`,
  },
  {
    method: "GET",
    route: "/v1/snapshots/{id}/events/list",
    path: `/v1/snapshots/${UNKNOWN_ID}/events/list`,
  },
  {
    method: "GET",
    route: "/v1/snapshots/{id}/events/follow",
    path: `/v1/snapshots/${UNKNOWN_ID}/events/follow`,
  },
];

/** Routes that are valid without any argument. */
export const plainRoutes: readonly string[] = [
  "/v1/version",
  "/v1/openapi.json",
  "/v1/status",
  "/v1/snapshots",
  "/metrics",
];

export function head(
  method: string,
  path: string,
  headers: Readonly<Record<string, string | number>>,
) {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`${method} ${path} HTTP/1.1\r\nhost: x\r\n${lines.join("")}\r\n`, "latin1");
}

export function withBody(
  template: Template,
  body: string | Buffer,
  type = "application/json",
): Buffer {
  const bytes = Buffer.from(body as string);
  const headers = { "content-type": type, "content-length": bytes.length };
  return Buffer.concat([head(template.method, template.path, headers), bytes]);
}

export function whole(template: Template): Buffer {
  if (template.body === undefined) return head(template.method, template.path, {});
  return withBody(template, JSON.stringify(template.body));
}
