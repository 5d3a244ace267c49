/** The recipe of docs/monitoring.md for Prometheus, as it stands there. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "./volumes.mjs";

const UNIT = "blksnapd.service";
const PAGE = join(import.meta.dirname, "monitoring.md");
const CONFIG = "/etc/blksnap/blksnap.toml.d/metrics.toml";
const SOCKET = "/run/blksnap/metrics.sock";

/** The units as docs/monitoring.md has them, each with its path in the first line. */
function unitsOfPage() {
  const blocks = [...readFileSync(PAGE, "utf8").matchAll(/```ini\n# (\S+)\n(.*?)```/gs)];
  assert.equal(blocks.length, 2, PAGE);
  return blocks.map(([, path, text]) => ({ path, text }));
}

const commandsOfPage = () => readFileSync(PAGE, "utf8").match(/^systemctl .*$/gm);

export async function scrape() {
  const units = unitsOfPage();
  run("groupadd", "--system", "blksnap-metrics");
  mkdirSync("/etc/blksnap/blksnap.toml.d", { recursive: true });
  writeFileSync(CONFIG, `[daemon]\nmetrics-socket = "${SOCKET}"\n`);
  for (const { path, text } of units) writeFileSync(path, text);
  run("systemctl", "reload", UNIT);
  for (const command of commandsOfPage()) run("sh", "-c", command);
  const [, address] = /ListenStream=(\S+)/.exec(units[0].text);
  const response = await fetch(`http://${address}/metrics`);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  assert.match(text, /^blksnap_build_info\{.*\} 1$/m);
  assert.match(text, /^blksnap_front_reads_total\{device="\/dev\/vg\/uuid"\} \d+$/m);
  // It serves nothing else: this socket has no power over devices.
  assert.equal((await fetch(`http://${address}/v1/status`)).status, 404);
  run("systemctl", "disable", "--now", "blksnap-metrics.socket", "blksnap-metrics.service");
  for (const { path } of units) rmSync(path);
  rmSync(CONFIG);
  run("systemctl", "daemon-reload");
  run("systemctl", "reload", UNIT);
}
