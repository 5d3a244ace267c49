/**
 * The control and the NBD socket of a service manager; here a process that behaves like systemd. They outlive
 * daemons: the next daemon responds to clients that connect while none serves.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NbdClient } from "@blksnap/nbd";
import { eventually } from "@blksnap/testing";
import { duplicateFd, listenLocal, socketPair } from "@blksnap/uring";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type PassedSocket,
  passableSockets,
  passedSockets,
  takePassedSockets,
  usableSockets,
  withPassedSockets,
} from "../dist/passed-sockets.js";
import { program } from "./daemon-program.js";

const test = suite("passed sockets");
/** exec keeps the process, whose id is only known then. */
const LAUNCHER = 'LISTEN_PID=$$ exec "$@"';

/** By default the name of the unit. */
const CONTROL = "blksnapd.socket";

let folder = "";
let socket = "";
/** A socket on which this process accepts nothing, like systemd once a daemon runs. */
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

/** @param passed descriptors by their names, in order */
function start(passed: Record<string, number>, ...more: string[]): ChildProcess {
  const words = [process.execPath, program, "--frontend=nbd", "--log-level=warn", "--reactors=1"];
  const paths = [
    `--state-dir=${join(folder, "state")}`,
    `--persistent-dir=${join(folder, "kept")}`,
    `--config=${join(folder, "empty.toml")}`,
    `--socket=${socket}`,
  ];
  said = "";
  const child = spawn("sh", ["-c", LAUNCHER, "sh", ...words, ...paths, ...more], {
    stdio: ["ignore", "ignore", "pipe", ...Object.values(passed)],
    env: {
      ...{ PATH: process.env["PATH"], HOME: folder, XDG_RUNTIME_DIR: folder },
      LISTEN_FDS: String(Object.keys(passed).length),
      LISTEN_FDNAMES: Object.keys(passed).join(":"),
    },
  });
  child.stderr?.on("data", (text) => {
    said += text;
  });
  daemon = child;
  return child;
}

/** @returns the text of the response */
function post(method: string, path: string, body?: object): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const asked = request(
      { socketPath: socket, path, method, headers, agent: false },
      (response) => {
        response
          .setEncoding("utf8")
          .toArray()
          .then((parts) => resolve(parts.join("")), reject);
      },
    );
    asked.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function socketOf(child: ChildProcess, fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/${child.pid}/fd/${fd}`);
  } catch {
    return undefined;
  }
}

/** Waits in the socket's queue while no daemon accepts. @returns the pid of the daemon that responds */
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

/** After the end of the last daemon, no process responds. */
async function answered(child: ChildProcess, asked: Promise<number>): Promise<number> {
  const ended = once(child, "exit").then(([status]) => assert.unreachable(`${status}: ${said}`));
  return (await Promise.race([asked, ended])) as number;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  const ended = once(child, "exit");
  child.kill(signal);
  await ended;
}

test("requests before the daemon's start wait for it, and after its end for the next one", async () => {
  const { ino } = statSync(socket);
  for (const signal of ["SIGTERM", "SIGKILL", "SIGTERM"] as const) {
    const asked = ask();
    const child = start({ [CONTROL]: listenFd });
    assert.is(await answered(child, asked), child.pid);
    await end(child, signal);
    assert.is(statSync(socket).ino, ino, "the socket is not the daemon's");
  }
});

test("a supervisor passes the socket on, also to the daemon after a crash", async () => {
  const asked = ask();
  const supervisor = start({ [CONTROL]: listenFd }, "--supervise", "--standbys=1");
  const first = await answered(supervisor, asked);
  assert.is.not(first, supervisor.pid);
  process.kill(first, "SIGKILL");
  await eventually("its end", () => !existsSync(`/proc/${first}`));
  const next = await answered(supervisor, ask());
  assert.is.not(next, first);
  // Child processes of the daemon do not get it.
  const environment = readFileSync(`/proc/${supervisor.pid}/environ`, "utf8");
  assert.match(environment, "LISTEN_FDS=1");
  await end(supervisor, "SIGTERM");
  assert.ok(existsSync(socket));
});

/** A list of exports shows that the daemon serves: without a device it is empty. */
async function exportsAt(path: string): Promise<readonly string[]> {
  const listed = await NbdClient.list({ socketPath: path });
  return listed.map(({ name }) => name);
}

test("NBD clients before a daemon's start wait for it, also for the next one, and the socket stays", async () => {
  const path = join(folder, "blksnap", "nbd.sock");
  const nbdFd = listenLocal(path, 0o600);
  const { ino } = statSync(path);
  // Its descriptor comes first: names distinguish them.
  for (const more of [[], ["--supervise", "--standbys=1"]]) {
    for (const signal of ["SIGTERM", "SIGTERM"] as const) {
      const waiting = exportsAt(path);
      const child = start({ nbd: nbdFd, [CONTROL]: listenFd }, ...more);
      assert.equal(await waiting, []);
      const first = await answered(child, ask());
      if (more.length > 0) {
        process.kill(first, "SIGKILL");
        await eventually("its end", () => !existsSync(`/proc/${first}`));
        assert.equal(await exportsAt(path), []);
        assert.is.not(await answered(child, ask()), first);
      }
      await end(child, signal);
      assert.not.match(said, /is not used|cannot export over NBD/);
      assert.is(statSync(path).ino, ino, "the socket is not the daemon's");
    }
  }
  closeSync(nbdFd);
});

test("one passed socket alone is used, and the daemon creates the other", async () => {
  const path = join(folder, "blksnap", "nbd.sock");
  rmSync(socket);
  const nbdFd = listenLocal(path, 0o600);
  const child = start({ nbd: nbdFd });
  assert.equal(await exportsAt(path), []);
  await eventually("the daemon's own socket", () => existsSync(socket));
  assert.is(await ask(), child.pid);
  await end(child, "SIGTERM");
  assert.equal([existsSync(path), existsSync(socket)], [true, false]);
  closeSync(nbdFd);
});

/** At a free port; nothing accepts there. */
async function listenTcp(): Promise<{ readonly fd: number; readonly port: number }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const fd = duplicateFd((server as unknown as { _handle: { fd: number } })._handle.fd);
  server.close();
  await once(server, "close");
  return { fd, port };
}

test("NBD clients by TCP before a daemon's start wait for it, also for the next one", async () => {
  const { fd, port } = await listenTcp();
  const list = async () => await NbdClient.list({ host: "127.0.0.1", port });
  const options = [`--nbd-listen=127.0.0.1:${port}`, "--nbd-insecure"];
  for (const more of [[], ["--supervise", "--standbys=1"]]) {
    const waiting = list();
    const child = start({ "nbd-tcp": fd, [CONTROL]: listenFd }, ...options, ...more);
    assert.equal(await waiting, []);
    const first = await answered(child, ask());
    if (more.length > 0) {
      process.kill(first, "SIGKILL");
      assert.equal(await list(), []);
    }
    await end(child, "SIGTERM");
    assert.not.match(said, /is not used|NBD/);
  }
  closeSync(fd);
});

test("a passed TCP socket without a setting for its address serves once a command opens it, again and again", async () => {
  const { fd, port } = await listenTcp();
  const child = start({ "nbd-tcp": fd, [CONTROL]: listenFd });
  await answered(child, ask());
  assert.match(said, new RegExp(`"address":"127.0.0.1:${port}".*NBD clients wait`));
  const open = { address: "127.0.0.1", port, insecure: true };
  const refused = { ...open, insecure: false, certificates: folder };
  for (let times = 0; times < 3; times++) {
    assert.match(await post("POST", "/v1/nbd/listeners", refused), "NBD_CERTIFICATES_UNUSABLE");
    assert.match(await post("POST", "/v1/nbd/listeners", open), '"open":true');
    assert.equal(await NbdClient.list({ host: "127.0.0.1", port }), []);
    await post("DELETE", `/v1/nbd/listeners?address=127.0.0.1&port=${port}`);
  }
  const isSocket = (name: string) => socketOf(child, name) === socketOf(child, "3");
  const sockets = readdirSync(`/proc/${child.pid}/fd`).filter(isSocket);
  assert.equal(sockets, ["3"], "no duplicate is left");
  await end(child, "SIGTERM");
  closeSync(fd);
});

test("a passed socket that is not the control socket is not used, which is logged", async () => {
  rmSync(socket);
  const otherFd = listenLocal(join(folder, "other.sock"), 0o600);
  const child = start({ [CONTROL]: otherFd });
  await eventually("the daemon's own socket", () => existsSync(socket));
  assert.is(await ask(), child.pid);
  assert.match(said, /"problem":"it is not the control socket[^"]*other\.sock"/);
  await end(child, "SIGTERM");
  assert.not.ok(existsSync(socket), "its own goes with it");
  closeSync(otherFd);
});

test("descriptors are for the named process, and for daemons that it starts as a supervisor", () => {
  const given = { LISTEN_FDS: "2", LISTEN_PID: "7", LISTEN_FDNAMES: "x:nbd", OTHER: "stays" };
  const both = [
    { fd: 3, name: "x" },
    { fd: 4, name: "nbd" },
  ];
  assert.equal(passedSockets(given, 7), both);
  assert.equal(passedSockets(given, 8), []);
  assert.equal(passedSockets({ ...given, LISTEN_FDS: "none" }, 7), []);
  assert.is(passedSockets({ ...given, LISTEN_FDS: "1000000000" }, 7).length, 16);
  const environment: Record<string, string | undefined> = { ...given };
  assert.equal(takePassedSockets(environment, 7), both);
  assert.equal(environment, { OTHER: "stays" });
  const passedOn = withPassedSockets(environment, both);
  assert.equal(takePassedSockets(passedOn, 9), both);
  assert.equal(passedOn, { OTHER: "stays" });
  // As supervisors of an earlier version do.
  assert.equal(takePassedSockets({ BLKSNAP_LISTEN_FDS: "1" }, 9), [{ fd: 3, name: "" }]);
  assert.equal(takePassedSockets({}, 9), []);
});

test("a supervisor passes open descriptors, the control socket first", () => {
  const nbd = { fd: 0, name: "nbd" };
  const control = { fd: listenFd, name: "" };
  assert.equal(passableSockets([nbd, control, { fd: 1 << 20, name: "" }]), [control, nbd]);
});

test("a socket of the wrong kind, at another path, or passed twice is not used, with a logged reason", () => {
  const paths = { control: socket, nbd: join(folder, "nbd.sock") };
  const nbdFd = listenLocal(paths.nbd, 0o600);
  const file = openSync(join(folder, "empty.toml"), "r");
  const [end, other] = socketPair();
  const told: Record<string, unknown>[] = [];
  const logger = { warn: (fields: Record<string, unknown>) => told.push(fields) };
  const use = (...passed: PassedSocket[]) => usableSockets(passed, paths, logger as never);
  const nbd = (fd: number): PassedSocket => ({ fd, name: "nbd" });
  const named = (name: string, fd: number): PassedSocket => ({ fd, name });
  assert.equal(use(named("unknown", listenFd), nbd(nbdFd)), {
    ...{ control: listenFd, nbd: nbdFd, tcp: [] },
  });
  assert.equal(told, []);
  assert.equal(use(nbd(file), nbd(end), nbd(1 << 20), nbd(listenFd)), { tcp: [] });
  assert.equal(use(nbd(nbdFd), nbd(nbdFd)), { nbd: nbdFd, tcp: [] });
  assert.equal(use(named("web", nbdFd)), { tcp: [] });
  assert.equal(use(named("nbd-tcp", nbdFd), named("nbd-tcp", file)), { tcp: [] });
  const problems = told.map(({ problem }) => String(problem));
  const expected = [
    /not the NBD socket, .*: .*is not a socket \(ENOTSOCK\)/,
    /not the NBD socket, .*: .*does not listen \(EINVAL\)/,
    /not the NBD socket, .*: .*is not open \(EBADF\)/,
    /not the NBD socket, .*: it listens at .*blksnapd\.sock/,
    /another one was passed for it/,
    /not the control socket, and its FileDescriptorName is neither nbd nor nbd-tcp, .*nbd\.sock/,
    /not a TCP socket: it listens at .*nbd\.sock/,
    /not a TCP socket: .*is not a socket \(ENOTSOCK\)/,
  ];
  assert.is(problems.length, expected.length);
  for (const [index, pattern] of expected.entries()) assert.match(problems[index] ?? "", pattern);
  for (const fd of [nbdFd, file, end, other]) closeSync(fd);
});

test.run();
