/** The registered routes: the source of the API's description, and of the methods that a path allows. */
import { strict as assert } from "node:assert";
import type { DescribedRequest } from "@blksnap/api";
import type { FastifyInstance, FastifySchema, RouteOptions } from "fastify";
import type { Answers } from "./route-context.js";

function segmentsOf(path: string): string[] {
  return path.split("/");
}

function described({ method, url, schema }: RouteOptions): DescribedRequest {
  const { operation, params, querystring, headers, body, response } = schema as FastifySchema;
  assert(operation !== undefined && typeof method === "string", `${url} is not described`);
  const { content } = (response as Answers)[200];
  const answers = Object.entries(content).map(([type, { schema: of }]) => [type, of]);
  const parts = { params, querystring, headers, body } as Pick<
    DescribedRequest,
    "params" | "querystring" | "headers" | "body"
  >;
  return { operation, method, path: url, ...parts, answers: Object.fromEntries(answers) };
}

export class RouteTable {
  readonly #routes: RouteOptions[] = [];

  /** Create it before the routes. */
  constructor(app: FastifyInstance) {
    app.addHook("onRoute", (route) => void this.#routes.push(route));
  }

  get requests(): DescribedRequest[] {
    return this.#routes.map(described);
  }

  /** The methods that a path allows; none for an unknown path. */
  methodsAt(path: string): string[] {
    const asked = segmentsOf(path);
    const isAt = ({ url }: RouteOptions): boolean => {
      const segments = segmentsOf(url);
      if (segments.length !== asked.length) return false;
      return segments.every((part, at) =>
        part.startsWith(":") ? asked[at] !== "" : part === asked[at],
      );
    };
    return this.#routes.filter(isAt).map(({ method }) => String(method));
  }
}
