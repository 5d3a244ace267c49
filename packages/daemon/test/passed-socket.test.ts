/**
 * The control socket where a service manager has made it: here a process that does as systemd does. It stays through the
 * ends of daemons, and who comes while none serves is answered by the next one.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually } from "@blksnap/testing";
import { listenLocal } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { passedSockets, takePassedSocket } from "../dist/passed-socket.js";

const test = suite("a passed control socket");
const program = fileURLToPath(new URL("./user-daemon.js", import.meta.url));
/** What execs keeps the process, whose id is only known then. */
const LAUNCHER = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"';

let folder = "";
let socket = "";
/** A socket that nobody accepts from here, as systemd does not once a daemon runs. */
let listenFd: number;
let daemon: ChildProcess | undefined;
let said = "";

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), "blksnap-passed-"));
  mkdirSync(join(folder, "blksnap"));
  socket = join(folder, "blksnap", "blksnapd.sock");
  listenFd = listenLocal(socket, 0o600);
  writeFileSync(join(folder, "empty.toml"), "");
});
test.after.each(() => {
  daemon?.kill("SIGKILL");
  closeSync(listenFd);
  rmSync(folder, { recursive: true });
});

function start(passedFd: number, ...more: string[]): ChildProcess {
  const words = [process.execPath, program, "--frontend=nbd", "--log-level=warn", "--reactors=1"];
  const paths = [
    `--state-dir=${join(folder, "state")}`,
    `--persistent-dir=${join(folder, "kept")}`,
    `--config=${join(folder, "empty.toml")}`,
    `--socket=${socket}`,
  ];
  said = "";
  const child = spawn("sh", ["-c", LAUNCHER, "sh", ...words, ...paths, ...more], {
    stdio: ["ignore", "ignore", "pipe", passedFd],
    env: { PATH: process.env["PATH"], HOME: folder, XDG_RUNTIME_DIR: folder },
  });
  child.stderr?.on("data", (text) => {
    said += text;
  });
  daemon = child;
  return child;
}

/** Waits in the socket's queue where nobody accepts. @returns the pid of who answers */
function ask(): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath: socket, path: "/v1/status", agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part) => {
        text += part;
      });
      response.on("end", () => resolve(JSON.parse(text).daemon.pid));
    });
    asked.on("error", reject).end();
  });
}

/** Nobody answers any more what comes after the end of the last one. */
async function answered(child: ChildProcess, asked: Promise<number>): Promise<number> {
  const ended = once(child, "exit").then(([status]) => assert.unreachable(`${status}: ${said}`));
  return (await Promise.race([asked, ended])) as number;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const ended = once(child, "exit");
  child.kill(signal);
  await ended;
}

test("requests before the daemon's start are answered by it, and after its end by the next one", async () => {
  const { ino } = statSync(socket);
  for (const signal of ["SIGTERM", "SIGKILL", "SIGTERM"] as const) {
    const asked = ask();
    const child = start(listenFd);
    assert.is(await answered(child, asked), child.pid);
    await end(child, signal);
    assert.is(statSync(socket).ino, ino, "the socket is not the daemon's");
  }
});

test("a supervisor passes it on, to the daemon after a crash, too", async () => {
  const asked = ask();
  const supervisor = start(listenFd, "--supervise", "--standbys=1");
  const first = await answered(supervisor, asked);
  assert.is.not(first, supervisor.pid);
  process.kill(first, "SIGKILL");
  await eventually("its end", () => !existsSync(`/proc/${first}`));
  const next = await answered(supervisor, ask());
  assert.is.not(next, first);
  // Nothing of it is left for what a daemon starts.
  const environment = readFileSync(`/proc/${supervisor.pid}/environ`, "utf8");
  assert.match(environment, "LISTEN_FDS=1");
  await end(supervisor, "SIGTERM");
  assert.ok(existsSync(socket));
});

test("one that is not the control socket is not used, which is said", async () => {
  rmSync(socket);
  const otherFd = listenLocal(join(folder, "other.sock"), 0o600);
  const child = start(otherFd);
  await eventually("the daemon's own socket", () => existsSync(socket));
  assert.is(await ask(), child.pid);
  assert.match(said, /"passed":"[^"]*other\.sock".*is not the control socket/);
  await end(child, "SIGTERM");
  assert.not.ok(existsSync(socket), "its own goes with it");
  closeSync(otherFd);
});

test("descriptors are for the process that is named, and for those that its supervisor starts", () => {
  const given = { LISTEN_FDS: "1", LISTEN_PID: "7", LISTEN_FDNAMES: "x", OTHER: "stays" };
  assert.is(passedSockets(given, 7), 1);
  assert.is(passedSockets(given, 8), 0);
  assert.is(passedSockets({ ...given, LISTEN_FDS: "none" }, 7), 0);
  const environment: Record<string, string> = { ...given };
  assert.is(takePassedSocket(environment, 7), 3);
  assert.equal(environment, { OTHER: "stays" });
  assert.is(takePassedSocket({ BLKSNAP_LISTEN_FDS: "1" }, 9), 3);
  assert.is(takePassedSocket({}, 9), undefined);
});

test.run();
