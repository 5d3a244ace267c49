/** config check: reports mistakes in the daemon's configuration. */
import type { ConfigReport } from "@blksnap/api";
import { configReport } from "../host-report.js";
import { parsePath } from "../values.js";
import type { Context, Given } from "../verb.js";

export async function config(context: Context, given: Given): Promise<void> {
  const { json, print, printJson, notAllWell } = context;
  const file = given.one("file");
  const report = await configReport(file === undefined ? undefined : parsePath(file, "file"));
  if (report.problems.some(({ severity }) => severity === "error")) notAllWell();
  if (json) return printJson(report);
  for (const problem of report.problems) print(lineOf(problem));
  print(summaryOf(report));
}

function lineOf({ path, line, severity, what, hint }: ConfigReport["problems"][number]): string {
  const place = line === null ? path : `${path}:${line}`;
  return `${severity.padEnd(7)}  ${place}: ${what}. ${hint}\n`;
}

function summaryOf({ path, files, devices, problems, starts }: ConfigReport): string {
  const errors = problems.filter(({ severity }) => severity === "error").length;
  const corrections = `${errors} to correct\n`;
  if (!starts) return `A daemon does not start with it: ${corrections}`;
  if (errors > 0) return `A daemon starts with it, but does not attach all devices: ${corrections}`;
  if (files.length === 0) return `${path} does not exist: defaults are in force\n`;
  return `A daemon can start with it; devices to attach: ${devices.length}\n`;
}
