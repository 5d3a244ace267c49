/**
 * A daemon without devices, for tests of the supervisor. The state folder (first argument) controls it: `version` is
 * the version that it reports; with `fail-start` or `fail-ready` it ends at that point, with the reason in `refusal`.
 * It writes its pid to `serving`, and a byte to `failed` for each daemon that did not become ready.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ToDaemon, ToSupervisor } from "../dist/supervisor-link.js";

const [folder = "", role] = process.argv.slice(2);
const say = (message: ToSupervisor): void => void process.send?.(message);
const version = readFileSync(join(folder, "version"), "utf8");

function serve(): void {
  if (existsSync(join(folder, "fail-start")) && version === "bad") process.exit(9);
  writeFileSync(join(folder, "serving"), `${process.pid} ${version}`);
  say({ type: "serving" });
  say({ type: "settled" });
}

function failReady(): void {
  const refusal = existsSync(join(folder, "refusal"))
    ? readFileSync(join(folder, "refusal"), "utf8")
    : undefined;
  appendFileSync(join(folder, "failed"), "x");
  if (refusal === undefined) process.exit(8);
  process.removeAllListeners("message");
  process.removeAllListeners("disconnect");
  process.removeAllListeners("SIGUSR2");
  process.exitCode = 2;
  say({ type: "refused", why: refusal });
}

process.on("message", (message: ToDaemon) => {
  if (message.type === "go") serve();
  else if (message.type === "end") {
    if (existsSync(join(folder, "refuse"))) writeFileSync(join(folder, "refused"), message.signal);
    else process.exit(0);
  } else if (message.type === "prepared") process.exit(75);
  else writeFileSync(join(folder, "unprepared"), message.problem);
});
process.on("SIGUSR2", () => say({ type: "prepare" }));
process.on("disconnect", () => process.exit(0));
if (role === "--standby") {
  if (existsSync(join(folder, "fail-ready"))) failReady();
  else {
    say({ type: "ready", version });
    writeFileSync(join(folder, `ready-${process.pid}`), "");
  }
} else {
  serve();
}
