/** Routes of one tracked device. */
import { Readable } from "node:stream";
import type { DiffAnswer, DiffResponse } from "@blksnap/api";
import {
  type AttachRequest,
  type CbtMapQuery,
  ControlError,
  type DetachQuery,
  type DeviceQuery,
  type DiffQuery,
  type MarkDirtyFileRequest,
  type MarkDirtyRequest,
  trackerSchemas as schemas,
  statusSchemas,
} from "@blksnap/api";
import {
  answers,
  answersInLines,
  binaryAnswers,
  LINES_TYPE,
  type RouteContext,
} from "./route-context.js";

type Ranges = DiffResponse["ranges"];

/** The part of ordered ranges from an offset on. */
function rangesFrom(offsetBytes: number, ranges: Ranges): Ranges {
  if (ranges.length === 0 || ranges[0]!.offset_bytes >= offsetBytes) return ranges;
  return ranges.flatMap((range) => {
    const end = range.offset_bytes + range.length_bytes;
    if (end <= offsetBytes) return [];
    const from = Math.max(range.offset_bytes, offsetBytes);
    return { ...range, offset_bytes: from, length_bytes: end - from };
  });
}

async function* diffText({ ranges, ...head }: DiffAnswer, from: number): AsyncGenerator<string> {
  yield `${JSON.stringify(head).slice(0, -1)},"ranges":[`;
  let separator = "";
  for await (const batch of ranges) {
    const wanted = rangesFrom(from, batch);
    if (wanted.length === 0) continue;
    yield separator + JSON.stringify(wanted).slice(1, -1);
    separator = ",";
  }
  yield "]}";
}

async function* diffLines({ ranges, ...head }: DiffAnswer, from: number): AsyncGenerator<string> {
  yield `${JSON.stringify(head)}\n`;
  for await (const batch of ranges) {
    const wanted = rangesFrom(from, batch);
    if (wanted.length > 0) yield `${JSON.stringify({ ranges: wanted })}\n`;
  }
}

/** @throws ControlError CBT_GENERATION_CHANGED, CBT_NUMBER_CHANGED */
function assertSameTake({ generation, changes_number }: DiffQuery, diff: DiffAnswer): void {
  if (generation !== undefined && generation.toLowerCase() !== diff.generation_id) {
    throw new ControlError(
      "CBT_GENERATION_CHANGED",
      `${diff.device} now has CBT generation ${diff.generation_id}`,
    );
  }
  if (changes_number !== undefined && changes_number !== diff.changes_number) {
    throw new ControlError(
      "CBT_NUMBER_CHANGED",
      `${diff.device} is now at number ${diff.changes_number}`,
    );
  }
}

export function addTrackerRoutes({ app, driver }: RouteContext): void {
  app.post<{ Body: AttachRequest }>(
    "/v1/trackers",
    {
      schema: {
        operation: "attach",
        body: schemas.attachRequest,
        response: answers(schemas.attachResponse),
      },
    },
    (request) => {
      const { device, ...options } = request.body;
      return driver().attach(device, options);
    },
  );
  app.get<{ Querystring: DeviceQuery }>(
    "/v1/trackers",
    {
      schema: {
        operation: "getTracker",
        querystring: schemas.deviceQuery,
        response: answers(statusSchemas.trackerStatus),
      },
    },
    (request) => driver().trackerStatus(request.query.device),
  );
  app.delete<{ Querystring: DetachQuery }>(
    "/v1/trackers",
    {
      schema: {
        operation: "detach",
        querystring: schemas.detachQuery,
        response: answers(schemas.detachResponse),
      },
    },
    (request) => {
      const { device, ...options } = request.query;
      return driver().detach(device, options);
    },
  );
  app.get<{ Querystring: DeviceQuery }>(
    "/v1/trackers/snapshot",
    {
      schema: {
        operation: "getSnapshotInfo",
        querystring: schemas.deviceQuery,
        response: answers(schemas.snapshotInfo),
      },
    },
    (request) => driver().snapshotInfo(request.query.device),
  );
  addCbtRoutes({ app, driver });
}

function addCbtRoutes({ app, driver }: Pick<RouteContext, "app" | "driver">): void {
  app.get<{ Querystring: DeviceQuery }>(
    "/v1/trackers/cbt",
    {
      schema: {
        operation: "getCbtInfo",
        querystring: schemas.deviceQuery,
        response: answers(schemas.cbtInfo),
      },
    },
    (request) => driver().cbtInfo(request.query.device),
  );
  app.get<{ Querystring: CbtMapQuery }>(
    "/v1/trackers/cbt/map",
    {
      schema: {
        operation: "readCbtMap",
        querystring: schemas.cbtMapQuery,
        response: binaryAnswers,
      },
    },
    async (request, reply) => {
      const { device, first_block: first, block_count: count } = request.query;
      const map = await driver().readCbtMap(device, first, count);
      if (map.length !== count) {
        throw new ControlError("CBT_RANGE", `the map ends before block ${first + count}`);
      }
      // Others may write or unmap the map's memory: copy it before it is sent.
      return reply.type("application/octet-stream").send(Buffer.from(map));
    },
  );
  app.post<{ Body: MarkDirtyRequest }>(
    "/v1/trackers/cbt/dirty",
    {
      schema: {
        operation: "markDirty",
        body: schemas.markDirtyRequest,
        response: answers(schemas.markDirtyResponse),
      },
    },
    (request) => driver().markDirty(request.body.device, request.body.ranges),
  );
  app.post<{ Body: MarkDirtyFileRequest }>(
    "/v1/trackers/cbt/dirty_file",
    {
      schema: {
        operation: "markDirtyFile",
        body: schemas.markDirtyFileRequest,
        response: answers(schemas.markDirtyFileResponse),
      },
    },
    (request) => driver().markDirtyFile(request.body.file, request.body.device),
  );
  app.get<{ Querystring: DiffQuery }>(
    "/v1/trackers/cbt/diff",
    {
      schema: {
        operation: "diff",
        querystring: schemas.diffQuery,
        response: answersInLines(schemas.diffResponse, [schemas.diffHead, schemas.diffRanges]),
      },
    },
    async ({ query, headers }, reply) => {
      const diff = await driver().diff(query.device, query.since);
      assertSameTake(query, diff);
      const from = query.offset_bytes ?? 0;
      // Not all at once: a million ranges are 70 MB of text.
      if (headers.accept?.includes(LINES_TYPE)) {
        return reply.type(LINES_TYPE).send(Readable.from(diffLines(diff, from)));
      }
      const text = Readable.from(diffText(diff, from));
      return reply.type("application/json; charset=utf-8").send(text);
    },
  );
}
