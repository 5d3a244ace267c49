/** The OpenAPI description of the control API, made from the routes' own schemas when it is wanted. */
import fastify, { type FastifyInstance } from "fastify";

/**
 * Described on an app of its own that serves no client: what makes the description takes longer to load
 * than the whole of the routes, and hardly any daemon is ever asked for it.
 */
export async function describeApi(
  version: string,
  addRoutes: (app: FastifyInstance) => void,
): Promise<object> {
  const { default: swagger } = await import("@fastify/swagger");
  const app = fastify({
    exposeHeadRoutes: false,
    schemaController: { compilersFactory: { buildSerializer: () => () => JSON.stringify } },
  });
  app.setValidatorCompiler(() => () => true);
  await app.register(swagger, {
    openapi: { openapi: "3.1.0", info: { title: "blksnapd control API", version } },
  });
  addRoutes(app);
  await app.ready();
  const description = app.swagger();
  await app.close();
  return description;
}

/** Serves what `describe` gives; it is asked once. */
export function addDescriptionRoute(app: FastifyInstance, describe: () => Promise<object>): void {
  let description: Promise<object> | undefined;
  app.get("/v1/openapi.json", async () => {
    description ??= describe();
    return description;
  });
}
