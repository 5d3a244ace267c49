/** Counters and gauges, before they are written as text. */

export interface MetricSample {
  readonly labels?: Readonly<Record<string, string | number>>;
  readonly value: number;
  /** For histograms and summaries: `_bucket`, `_sum` or `_count`. */
  readonly suffix?: "_bucket" | "_sum" | "_count";
}

export interface MetricFamily {
  /** With its unit, e.g. `blksnap_copied_bytes_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram" | "summary";
  readonly samples: readonly MetricSample[];
}
