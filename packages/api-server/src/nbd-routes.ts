/** Routes of the TCP addresses that accept NBD clients. */
import {
  type NbdListenerOpenRequest,
  type NbdListenerQuery,
  nbdSchemas as schemas,
} from "@blksnap/api";
import { answers, type RouteContext } from "./route-context.js";

const PATH = "/v1/nbd/listeners";

export function addNbdRoutes({ app, driver, nbd }: RouteContext): void {
  if (nbd === undefined) return;
  app.get(
    PATH,
    { schema: { operation: "listNbdListeners", response: answers(schemas.nbdListenerList) } },
    async () => ({ listeners: nbd.list() }),
  );
  app.post<{ Body: NbdListenerOpenRequest }>(
    PATH,
    {
      schema: {
        operation: "openNbdListener",
        body: schemas.nbdListenerOpenRequest,
        response: answers(schemas.nbdListener),
      },
    },
    (request) => {
      // A daemon that ends opens none.
      driver();
      return nbd.open(request.body);
    },
  );
  app.delete<{ Querystring: NbdListenerQuery }>(
    PATH,
    {
      schema: {
        operation: "closeNbdListener",
        querystring: schemas.nbdListenerQuery,
        response: answers(schemas.nbdListener),
      },
    },
    (request) => nbd.close(request.query),
  );
}
