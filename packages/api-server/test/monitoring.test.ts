/** The alert rules and the dashboard in docs use existing metrics, in valid queries; the page describes all metrics. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { driverMetrics, type StatusResponse } from "@blksnap/api";
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

const NO_IO = { reads: 0, writes: 0 };
const DURATIONS = { bounds_us: [], copy: { buckets: [0] }, take_stall: { buckets: [0] } };
/** One object of each kind, so that each metric has its labels; other tests look at values. */
const STATUS = {
  daemon: { version: "1.2.3", kernel: "6.12.0", configuration: { mistakes: [], missing: [] } },
  reactors: [{ index: 0 }],
  trackers: [
    { device: "/dev/a", io: NO_IO, splice: null, persistence: {}, cbt: {}, durations: DURATIONS },
  ],
  snapshots: [{ id: "1", stores: [], devices: [{ device: "/dev/a", image_io: NO_IO }] }],
  waiting: [],
  untracked: [],
} as unknown as StatusResponse;

interface Metric {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly labels: string;
}
let metrics: readonly Metric[];

/** Ends of names of states that need attention. */
const ATTENTION =
  /_(failed|hung_stores|waiting|waiting_fronts|untracked_volumes|live|splice_lost|stalled_seconds)$/;
/** Prometheus itself makes this metric, for each target. */
const OF_PROMETHEUS = "up";

/** What `/metrics` serves. */
test.before(async () => {
  const harness = await startHarness((driver) =>
    Object.assign(driver, { metrics: async () => driverMetrics(STATUS) }),
  );
  // A request is counted when it ends.
  await ask(harness.socketPath, "/metrics");
  const { bytes } = await ask(harness.socketPath, "/metrics");
  await harness.stop();
  const text = bytes.toString();
  const families = /^# HELP (\S+) (.*)\n# TYPE \S+ (\w+)\n\w+(?:\{(.*)\})? /gm;
  metrics = [...text.matchAll(families)].map(([, name = "", help = "", type = "", labels = ""]) => {
    const words = [...labels.matchAll(/(\w+)="/g)].map(([, label]) => label);
    return { name, type, help, labels: words.filter((label) => label !== "le").join(", ") };
  });
});

function namesThatAre(): ReadonlySet<string> {
  const names = metrics.flatMap(({ name, type }) =>
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

test("each alert has a rule over existing metrics, a severity and a description", () => {
  const names = namesThatAre();
  assert.ok(rules.length >= 10);
  assert.is(new Set(rules.map(({ alert }) => alert)).size, rules.length);
  for (const { alert, expr, labels, annotations } of rules) {
    for (const name of metricsIn(expr)) assert.ok(names.has(name), `${alert}: ${name}`);
    assert.ok(["critical", "warning", "info"].includes(labels.severity), alert);
    assert.ok(annotations.summary.length > 0 && annotations.description.length > 0, alert);
  }
});

test("each panel shows existing metrics of the chosen instances", () => {
  const names = namesThatAre();
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
  const wanted = metrics.map(({ name }) => name).filter((name) => ATTENTION.test(name));
  assert.ok(wanted.length >= 6);
  for (const name of wanted) assert.ok(asked.has(name), name);
});

test("the page has a row for each metric, and no other, which says whether an alert or a panel uses it", () => {
  const uses = {
    alert: rules.flatMap(({ expr }) => metricsIn(expr)),
    panel: panels.flatMap(({ targets }) => targets.flatMap(({ expr }) => metricsIn(expr))),
  };
  const wanted = metrics.map(({ name, type, labels, help }) => {
    const isOf = (used: string) =>
      used === name || used.replace(/_(bucket|sum|count)$/, "") === name;
    const users = Object.entries(uses).filter(([, names]) => names.some(isOf));
    return [`\`${name}\``, type, labels, users.map(([user]) => user).join(", "), help];
  });
  const page = readFileSync(join(DOCS, "monitoring.md"), "utf8").split("\n");
  const rows = page
    .filter((line) => /^\| `(blksnap|process)_/.test(line))
    .map((line) => line.split("|").slice(1, -1))
    .map((cells) => cells.map((cell) => cell.trim()));
  for (const row of wanted) {
    const found = rows.find(([name]) => name === row[0]);
    assert.equal(found, row, `docs/monitoring.md: | ${row.join(" | ")} |`);
  }
  assert.is(rows.length, wanted.length);
});

test.run();
