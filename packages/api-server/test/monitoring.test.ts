/** The alert rules and the dashboard in docs use existing metrics, in valid queries. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { driverMetrics, type MetricFamily, type StatusResponse } from "@blksnap/api";
import { parser } from "@prometheus-io/lezer-promql";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parse } from "yaml";
import { ask, startHarness } from "./control-harness.js";

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}
interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string }[];
}

const DOCS = join(import.meta.dirname, "../../../docs");
const textOf = (name: string) => readFileSync(join(DOCS, "monitoring", name), "utf8");
const rules: readonly Rule[] = parse(textOf("alerts.yml")).groups.flatMap(
  (group: { rules: readonly Rule[] }) => group.rules,
);
const panels: readonly Panel[] = JSON.parse(textOf("dashboard.json")).panels;

const IDLE: StatusResponse = {
  daemon: {
    version: "1.2.3",
    pid: 1,
    started_at: "2026-01-01T00:00:00.000Z",
    uptime_ms: 0,
    kernel: "6.12.0",
    reactors: 1,
    handover: null,
    configuration: { mistakes: [], missing: [] },
  },
  reactors: [],
  trackers: [],
  waiting: [],
  untracked: [],
  snapshots: [],
  nbd_listeners: [],
};

/** Prometheus itself makes this metric, for each target. */
const OF_PROMETHEUS = "up";

async function namesThatAre(): Promise<ReadonlySet<string>> {
  const harness = await startHarness();
  const { bytes } = await ask(harness.socketPath, "/metrics");
  await harness.stop();
  const served = [...bytes.toString().matchAll(/^# TYPE (\S+) (\w+)/gm)].map(
    ([, name = "", type]) => ({ name, type }),
  );
  const names = [...served, ...driverMetrics(IDLE)].flatMap(({ name, type }) =>
    type === "histogram" ? ["_bucket", "_sum", "_count"].map((suffix) => name + suffix) : [name],
  );
  return new Set([OF_PROMETHEUS, ...names]);
}

/** The metrics in a query. @throws if it is not valid PromQL */
function metricsIn(query: string): string[] {
  // Grafana inserts an interval here.
  const text = query.replaceAll("$__rate_interval", "5m");
  const names: string[] = [];
  parser.parse(text).iterate({
    enter: ({ type, name, from, to }) => {
      if (type.isError) throw new Error(`no PromQL at ${from}: ${query}`);
      if (name === "VectorSelector") names.push(/^\w+/.exec(text.slice(from, to))?.[0] ?? "");
    },
  });
  assert.ok(names.length > 0, query);
  return names;
}

test("invalid PromQL is found", () => {
  assert.throws(() => metricsIn("rate(blksnap_copied_bytes_total[5m) > "));
  assert.equal(metricsIn("increase(one[5m]) > two{a='b'}"), ["one", "two"]);
});

test("each alert has a rule over existing metrics, a severity and a description", async () => {
  const names = await namesThatAre();
  assert.ok(rules.length >= 10);
  assert.is(new Set(rules.map(({ alert }) => alert)).size, rules.length);
  for (const { alert, expr, labels, annotations } of rules) {
    for (const name of metricsIn(expr)) assert.ok(names.has(name), `${alert}: ${name}`);
    assert.ok(["critical", "warning", "info"].includes(labels.severity), alert);
    assert.ok(annotations.summary.length > 0 && annotations.description.length > 0, alert);
  }
});

test("each panel shows existing metrics of the chosen instances", async () => {
  const names = await namesThatAre();
  assert.ok(panels.length >= 10);
  for (const { title, targets } of panels) {
    for (const { expr } of targets) {
      for (const name of metricsIn(expr)) assert.ok(names.has(name), `${title}: ${name}`);
      assert.match(expr, 'instance=~"$instance"', title);
    }
  }
});

test("each metric of a state that needs attention has an alert", () => {
  const asked = new Set(rules.flatMap(({ expr }) => metricsIn(expr)));
  const wanted = driverMetrics(IDLE)
    .map(({ name }: MetricFamily) => name)
    .filter((name) =>
      /_(failed|hung_stores|waiting|waiting_fronts|untracked_volumes|live|stalled_seconds)$/.test(
        name,
      ),
    );
  assert.ok(wanted.length >= 6);
  for (const name of wanted) assert.ok(asked.has(name), name);
});

test.run();
