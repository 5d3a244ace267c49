/** Messages to systemd, and the process that sends them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually, receiveDatagrams } from "@blksnap/testing";
import { pino } from "pino";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ServiceManager } from "../dist/service-manager.js";

const silent = pino({ level: "silent" });
const PID = 42;

function manager(
  environment: Record<string, string>,
  send?: (path: string, text: string) => number,
) {
  const given = { environment, pid: PID, logger: silent };
  return new ServiceManager(send === undefined ? given : { ...given, send });
}

test("readiness, state and end are sent to the socket, and watchdog pings if requested", async () => {
  const folder = mkdtempSync(join(tmpdir(), "blksnap-notify-"));
  const path = join(folder, "notify");
  const receiver = await receiveDatagrams(path);
  const environment: Record<string, string> = {
    NOTIFY_SOCKET: path,
    WATCHDOG_USEC: "20000",
    WATCHDOG_PID: String(PID),
    OTHER: "stays",
  };
  const told = manager(environment);
  assert.equal(environment, { OTHER: "stays" }, "not for processes that this one starts");
  told.status("starting");
  told.ready("pid 7 serves");
  told.stopping();
  // Its timers keep no process alive, so this one must be kept alive.
  const pings = () => receiver.received.filter((text) => text === "WATCHDOG=1").length;
  await eventually("two signs of life", () => pings() >= 2);
  assert.equal(
    receiver.received.filter((text) => text !== "WATCHDOG=1"),
    ["STATUS=starting", "READY=1\nSTATUS=pid 7 serves", "STOPPING=1"],
  );
  await receiver.close();
  rmSync(folder, { recursive: true });
});

test("without a service manager nothing is sent, nor watchdog pings that another process must send", async () => {
  const sent: string[] = [];
  const send = (_path: string, text: string) => sent.push(text);
  manager({}, send).ready("x");
  manager({ NOTIFY_SOCKET: "" }, send).ready("x");
  assert.equal(sent, []);
  const meant = { NOTIFY_SOCKET: "/n", WATCHDOG_USEC: "2000", WATCHDOG_PID: String(PID) };
  manager({ ...meant, WATCHDOG_PID: "7" }, send);
  manager({ ...meant, WATCHDOG_USEC: "no" }, send);
  let own = 0;
  manager(meant, () => ++own);
  await eventually("the one that is meant gives them", () => own >= 3);
  assert.equal(sent, []);
});

test("if the manager's queue is full a message is resent, and never arrives twice", async () => {
  const answers = [-11, -11, 5, 5];
  const sent: string[] = [];
  const send = (_path: string, text: string) => {
    sent.push(text);
    return answers.shift() ?? -2;
  };
  manager({ NOTIFY_SOCKET: "/n" }, send).stopping();
  await eventually("it is told", () => sent.length === 3);
  manager({ NOTIFY_SOCKET: "/n" }, send).status("x");
  assert.equal(sent, ["STOPPING=1", "STOPPING=1", "STOPPING=1", "STATUS=x"]);
});

test.run();
