/** Counts requests by route and status. */
import type { MetricFamily } from "@blksnap/api";

export class RequestCounters {
  readonly #counts = new Map<
    string,
    { method: string; route: string; status: number; n: number }
  >();

  /** `route` is the pattern of the route, so the number of counters is bounded. */
  add(method: string, route: string, status: number): void {
    const key = `${method} ${route} ${status}`;
    const entry = this.#counts.get(key);
    if (entry !== undefined) entry.n++;
    else this.#counts.set(key, { method, route, status, n: 1 });
  }

  family(): MetricFamily {
    return {
      name: "blksnap_control_requests_total",
      help: "Requests to the control API by route and HTTP status.",
      type: "counter",
      samples: [...this.#counts.values()].map(({ method, route, status, n }) => ({
        labels: { method, route, status },
        value: n,
      })),
    };
  }
}
