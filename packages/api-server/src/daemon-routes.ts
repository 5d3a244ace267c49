/** Routes that stop the daemon or replace it. */
import { type DaemonStopRequest, daemonSchemas as schemas } from "@blksnap/api";
import { answers, type RouteContext } from "./route-context.js";

export function addDaemonRoutes({ app, driver, daemon }: RouteContext): void {
  if (daemon === undefined) return;
  app.post(
    "/v1/daemon/upgrade",
    { schema: { operation: "upgradeDaemon", response: answers(schemas.daemonUpgradeResponse) } },
    () => {
      assertServing(driver);
      return daemon.upgrade();
    },
  );
  app.post<{ Body: DaemonStopRequest }>(
    "/v1/daemon/stop",
    {
      schema: {
        operation: "stopDaemon",
        body: schemas.daemonStopRequest,
        response: answers(schemas.daemonStopResponse),
      },
    },
    (request) => {
      assertServing(driver);
      return daemon.stop(request.body.keep);
    },
  );
}

/** @throws ControlError STARTING, SHUTTING_DOWN */
function assertServing(driver: RouteContext["driver"]): void {
  driver();
}
