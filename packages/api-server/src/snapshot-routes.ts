/** Routes of snapshots. */
import {
  ControlError,
  errorNameOf,
  type SnapshotAddRequest,
  type SnapshotCreateRequest,
  type SnapshotId,
  type SnapshotTakeQuery,
  snapshotSchemas as schemas,
  statusSchemas,
} from "@blksnap/api";
import { ProgressLines } from "./progress-lines.js";
import { answers, answersInLines, LINES_TYPE, type RouteContext } from "./route-context.js";

export function addSnapshotRoutes({ app, driver, open }: RouteContext): void {
  app.post<{ Body: SnapshotCreateRequest }>(
    "/v1/snapshots",
    {
      schema: {
        operation: "createSnapshot",
        body: schemas.snapshotCreateRequest,
        response: answersInLines(schemas.snapshotCreateResponse, [
          schemas.snapshotCreateProgress,
          schemas.snapshotCreateResponse,
        ]),
      },
    },
    async (request, reply) => {
      const { devices, stores, limit_bytes, on_overflow, persistent } = request.body;
      const { read_only_images, releasable_images } = request.body;
      const options = {
        devices,
        stores,
        limitBytes: limit_bytes,
        ...(on_overflow === undefined ? {} : { onOverflow: on_overflow }),
        ...(persistent === undefined ? {} : { persistent }),
        ...(read_only_images === undefined ? {} : { readOnlyImages: read_only_images }),
        ...(releasable_images === undefined ? {} : { releasableImages: releasable_images }),
      };
      const signal = open.signalFor(reply.raw);
      if (!request.headers.accept?.includes(LINES_TYPE)) {
        return await driver().snapshotCreate(options, signal);
      }
      const lines = new ProgressLines(reply);
      return await lines.answer(
        driver().snapshotCreate(options, signal, (progress) => lines.report({ progress })),
      );
    },
  );
  app.get(
    "/v1/snapshots",
    { schema: { operation: "listSnapshots", response: answers(schemas.snapshotList) } },
    async () => ({
      snapshots: await driver().snapshotCollect(),
    }),
  );
  app.get<{ Params: SnapshotId }>(
    "/v1/snapshots/:id",
    {
      schema: {
        operation: "getSnapshot",
        params: schemas.snapshotId,
        response: answers(statusSchemas.snapshotStatus),
      },
    },
    ({ params }) => driver().snapshotStatus(params.id.toLowerCase()),
  );
  app.delete<{ Params: SnapshotId }>(
    "/v1/snapshots/:id",
    {
      schema: {
        operation: "destroySnapshot",
        params: schemas.snapshotId,
        response: answers(schemas.snapshotId),
      },
    },
    async (request) => {
      const id = request.params.id.toLowerCase();
      try {
        await driver().snapshotDestroy(id);
      } catch (error) {
        if (errorNameOf(error) !== "SNAPSHOT_NOT_FOUND") throw error;
        // The kernel module returns ENODEV here, and ESRCH everywhere else.
        throw new ControlError("SNAPSHOT_NOT_FOUND", (error as Error).message, {
          cause: error,
          errnoName: "ENODEV",
        });
      }
      return { id };
    },
  );
  addTakeRoutes({ app, driver });
}

function addTakeRoutes({ app, driver }: Pick<RouteContext, "app" | "driver">): void {
  app.post<{ Params: SnapshotId; Body: SnapshotAddRequest }>(
    "/v1/snapshots/:id/devices",
    {
      schema: {
        operation: "addToSnapshot",
        params: schemas.snapshotId,
        body: schemas.snapshotAddRequest,
        response: answers(schemas.snapshotAddResponse),
      },
    },
    (request) => driver().snapshotAdd(request.params.id.toLowerCase(), request.body.device),
  );
  app.post<{ Params: SnapshotId; Querystring: SnapshotTakeQuery }>(
    "/v1/snapshots/:id/take",
    {
      schema: {
        operation: "takeSnapshot",
        params: schemas.snapshotId,
        querystring: schemas.snapshotTakeQuery,
        response: answers(schemas.snapshotTakeResponse),
      },
    },
    ({ params, query }) =>
      driver().snapshotTake(params.id.toLowerCase(), {
        requireFreeze: query.require_freeze ?? false,
      }),
  );
}
