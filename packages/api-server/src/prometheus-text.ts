/** Counters and gauges as Prometheus text (exposition format 0.0.4). */

import type { MetricFamily, MetricSample } from "@blksnap/api";

function escapeLabel(value: string | number): string {
  return String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function formatValue(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  if (value === Number.NEGATIVE_INFINITY) return "-Inf";
  return String(value);
}

function formatSample(family: MetricFamily, sample: MetricSample): string {
  const labels = Object.entries(sample.labels ?? {})
    .map(([name, value]) => `${name}="${escapeLabel(value)}"`)
    .join(",");
  const name = `${family.name}${sample.suffix ?? ""}`;
  return `${name}${labels === "" ? "" : `{${labels}}`} ${formatValue(sample.value)}\n`;
}

/** The text; families without samples are omitted. */
export function formatMetrics(families: readonly MetricFamily[]): string {
  let text = "";
  for (const family of families) {
    if (family.samples.length === 0) continue;
    const help = family.help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
    text += `# HELP ${family.name} ${help}\n# TYPE ${family.name} ${family.type}\n`;
    for (const sample of family.samples) text += formatSample(family, sample);
  }
  return text;
}
