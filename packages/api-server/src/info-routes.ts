/** Routes about the daemon itself: version, status, metrics. */
import { type MetricFamily, statusSchemas as schemas } from "@blksnap/api";
import { METRICS_TYPE } from "./metrics-server.js";
import { formatMetrics } from "./prometheus-text.js";
import { answers, type RouteContext, textAnswers } from "./route-context.js";

/** Metrics of the daemon's process, under the names of Prometheus's own clients. */
function processMetrics(): readonly MetricFamily[] {
  const memory = process.memoryUsage();
  const cpu = process.cpuUsage();
  return [
    {
      name: "process_cpu_seconds_total",
      help: "User and system time of all threads.",
      type: "counter",
      samples: [{ value: (cpu.user + cpu.system) / 1e6 }],
    },
    {
      name: "process_resident_memory_bytes",
      help: "Resident memory.",
      type: "gauge",
      samples: [{ value: memory.rss }],
    },
    {
      name: "process_start_time_seconds",
      help: "Start of the process, in seconds since the epoch.",
      type: "gauge",
      samples: [{ value: Math.round(Date.now() / 1000 - process.uptime()) }],
    },
  ];
}

export function addInfoRoutes({ app, driver, counters }: RouteContext): void {
  app.get(
    "/v1/version",
    { schema: { operation: "getVersion", response: answers(schemas.versionResponse) } },
    () => driver().version(),
  );
  app.get(
    "/v1/status",
    { schema: { operation: "getStatus", response: answers(schemas.statusResponse) } },
    () => driver().status(),
  );
  app.get(
    "/metrics",
    { schema: { operation: "getMetrics", response: textAnswers } },
    async (_request, reply) =>
      reply.type(METRICS_TYPE).send(await metricsText({ driver, counters })),
  );
}

/** All metrics as Prometheus text. @throws ControlError before a driver serves */
export async function metricsText({
  driver,
  counters,
}: Pick<RouteContext, "driver" | "counters">): Promise<string> {
  return formatMetrics([...(await driver().metrics()), counters.family(), ...processMetrics()]);
}
