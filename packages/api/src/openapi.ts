/**
 * The OpenAPI description of the control API, generated from the schemas that check requests. A schema that this
 * package exports is described once, under its name, and referenced.
 */
import { strict as assert } from "node:assert";
import * as daemonEvents from "./daemon-event-schemas.js";
import * as daemon from "./daemon-schemas.js";
import * as events from "./event-schemas.js";
import * as nbd from "./nbd-schemas.js";
import { OPERATIONS, type OperationId, TAGS } from "./operations.js";
import * as scalars from "./scalars.js";
import * as snapshots from "./snapshot-schemas.js";
import * as status from "./status-schemas.js";
import * as trackers from "./tracker-schemas.js";

/** A request as the server serves it: schemas of its parts, and of its response by media type. */
export interface DescribedRequest {
  readonly operation: OperationId;
  readonly method: string;
  /** With `:name` for the parts that vary. */
  readonly path: string;
  readonly params?: object | undefined;
  readonly querystring?: object | undefined;
  readonly headers?: object | undefined;
  readonly body?: object | undefined;
  readonly answers: Readonly<Record<string, object>>;
}

type Json = Readonly<Record<string, unknown>>;

interface ObjectSchema {
  readonly properties?: Readonly<Record<string, object>>;
  readonly required?: readonly string[];
}

function pascalCase(name: string): string {
  return name.replace(/(^|_)([a-z])/g, (_, __, letter: string) => letter.toUpperCase());
}

/** Each schema that has its own name; queries are described as parameters. */
function namedSchemas(): ReadonlyMap<unknown, string> {
  const { device, path, store, uuid } = scalars;
  const { EVENTS, ...eventSchemas } = events;
  const { DAEMON_EVENTS, SEVERITIES: _, ...daemonEventSchemas } = daemonEvents;
  const groups = {
    ...daemon,
    ...daemonEventSchemas,
    ...eventSchemas,
    ...nbd,
    ...snapshots,
    ...status,
    ...trackers,
  };
  const names = new Map<unknown, string>([
    [device, "DevicePath"],
    [path, "Path"],
    [store, "StorePath"],
    [uuid, "Uuid"],
  ]);
  for (const event of EVENTS) {
    names.set(event, `${pascalCase(event.properties.event.const)}Event`);
  }
  for (const event of DAEMON_EVENTS) {
    names.set(event, `Daemon${pascalCase(event.properties.event.const)}Event`);
  }
  for (const [name, schema] of Object.entries(groups)) {
    if (!name.endsWith("Query")) names.set(schema, pascalCase(name));
  }
  return names;
}

/** Collects the referenced schemas. */
class Components {
  readonly schemas: Record<string, unknown> = {};
  readonly #names = namedSchemas();

  /** The schema, with named parts moved into the components. */
  refer(schema: unknown): unknown {
    const name = this.#names.get(schema);
    if (name === undefined) return this.#within(schema);
    if (!Object.hasOwn(this.schemas, name)) {
      // Before its own parts, so that the components are in the order of their use.
      this.schemas[name] = undefined;
      this.schemas[name] = this.#within(schema);
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  #within(schema: unknown): unknown {
    if (Array.isArray(schema)) return schema.map((part) => this.refer(part));
    if (typeof schema !== "object" || schema === null) return schema;
    return Object.fromEntries(Object.entries(schema).map(([key, part]) => [key, this.refer(part)]));
  }
}

function parameters(part: object | undefined, where: string, components: Components): unknown[] {
  const { properties = {}, required = [] } = (part ?? {}) as ObjectSchema;
  return Object.entries(properties).map(([name, schema]) => {
    const { description } = schema as { readonly description?: string };
    return {
      name,
      in: where,
      required: required.includes(name),
      ...(description !== undefined && { description }),
      schema: components.refer(schema),
    };
  });
}

function described(request: DescribedRequest, components: Components): Json {
  const { operation, params, querystring, headers, body, answers } = request;
  const { tag, summary } = OPERATIONS[operation];
  const content = Object.entries(answers).map(([type, schema]) => [
    type,
    { schema: components.refer(schema) },
  ]);
  const all = [
    ...parameters(params, "path", components),
    ...parameters(querystring, "query", components),
    ...parameters(headers, "header", components),
  ];
  const bodyContent = { "application/json": { schema: components.refer(body) } };
  return {
    operationId: operation,
    summary,
    tags: [tag],
    ...(all.length > 0 && { parameters: all }),
    ...(body !== undefined && { requestBody: { required: true, content: bodyContent } }),
    responses: {
      200: { description: "Done", content: Object.fromEntries(content) },
      "4XX": { $ref: "#/components/responses/Refused" },
      "5XX": { $ref: "#/components/responses/Failed" },
    },
  };
}

/** @param version of the daemon */
export function openApiDescription(version: string, requests: readonly DescribedRequest[]): object {
  const components = new Components();
  const paths: Record<string, Record<string, Json>> = {};
  for (const request of requests) {
    const path = request.path.replace(/:([a-z_]+)/g, "{$1}");
    const methods = paths[path] ?? {};
    paths[path] = methods;
    const method = request.method.toLowerCase();
    assert(methods[method] === undefined, `${method} ${path} is described twice`);
    methods[method] = described(request, components);
  }
  const failure = {
    content: { "application/json": { schema: components.refer(status.errorResponse) } },
  };
  return {
    openapi: "3.1.0",
    info: {
      title: "blksnapd control API",
      version,
      description: "Snapshots and changed-block tracking of block devices; see its README.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [
      { url: "http://blksnap", description: "on the Unix socket; the host name is ignored" },
    ],
    // Access to the socket grants every operation.
    security: [],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      schemas: components.schemas,
      responses: {
        Refused: {
          description: "The request, or the object that it names, is invalid",
          ...failure,
        },
        Failed: { description: "The daemon failed, or cannot do it now", ...failure },
      },
    },
  };
}
