/** Serves the OpenAPI description of the control API. */
import { type DescribedRequest, openApiDescription } from "@blksnap/api";
import type { FastifyInstance } from "fastify";
import { answers } from "./route-context.js";

/** Any JSON: the description does not describe itself. */
const ANY_OBJECT = { type: "object" };

/** @param requests evaluated when the first client asks for the description */
export function addDescriptionRoute(
  app: FastifyInstance,
  version: string,
  requests: () => readonly DescribedRequest[],
): void {
  let description: object | undefined;
  app.get(
    "/v1/openapi.json",
    { schema: { operation: "getDescription", response: answers(ANY_OBJECT) } },
    async () => {
      description ??= openApiDescription(version, requests());
      return description;
    },
  );
}
