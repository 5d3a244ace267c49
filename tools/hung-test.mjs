/**
 * Prints where a process stands that hangs: what its threads run, and what could still wake it. Called by
 * run-tests.mjs, with the address at which the process's debugger listens.
 */
import { setTimeout as sleep } from "node:timers/promises";

const FRAMES = 12;
/** A thread that waits in the kernel does not stop. */
const STOP_MS = 3000;
const RESOURCES = "process.getActiveResourcesInfo().join(', ')";

const [, , url] = process.argv;
const socket = new WebSocket(url);
const answers = new Map();
let id = 0;

function send(method, params = {}) {
  id += 1;
  socket.send(JSON.stringify({ id, method, params }));
  return new Promise((done) => answers.set(id, done));
}

function sendToWorker(sessionId, method) {
  id += 1;
  const message = JSON.stringify({ id, method });
  return send("NodeWorker.sendMessageToWorker", { sessionId, message });
}

function printFrames(thread, scripts, { callFrames }) {
  console.log(`${thread} runs`);
  for (const { functionName, location } of callFrames.slice(0, FRAMES)) {
    const file = scripts.get(location.scriptId) || "evaluated code";
    console.log(`    at ${functionName || "(unnamed)"} (${file}:${location.lineNumber + 1})`);
  }
}

/** What is evaluated here stops, too. */
let isDone = false;
const mainScripts = new Map();
const workerScripts = new Map();
const events = {
  "Debugger.scriptParsed": ({ scriptId, url: file }) => mainScripts.set(scriptId, file),
  "Debugger.paused": (stopped) => {
    if (!isDone) printFrames("the main thread", mainScripts, stopped);
    void send("Debugger.resume");
  },
  "NodeWorker.attachedToWorker": ({ sessionId }) => {
    workerScripts.set(sessionId, new Map());
    void sendToWorker(sessionId, "Debugger.enable");
    void sendToWorker(sessionId, "Debugger.pause");
  },
  "NodeWorker.receivedMessageFromWorker": ({ sessionId, message }) => {
    const { method, params } = JSON.parse(message);
    const scripts = workerScripts.get(sessionId);
    if (method === "Debugger.scriptParsed") scripts.set(params.scriptId, params.url);
    if (method === "Debugger.paused") printFrames(`worker ${sessionId}`, scripts, params);
  },
};

socket.onmessage = ({ data }) => {
  const { id: answered, method, params, result } = JSON.parse(data);
  if (answered === undefined) events[method]?.(params);
  else answers.get(answered)?.(result);
};
await new Promise((done) => {
  socket.onopen = done;
});
await send("Debugger.enable");
await send("NodeWorker.enable", { waitForDebuggerOnStart: false });
await send("Debugger.pause");
// Stops what runs, and what a timer starts meanwhile.
await sleep(STOP_MS);
isDone = true;
const late = sleep(STOP_MS, { result: { value: "it does not answer" } });
const { result } = await Promise.race([send("Runtime.evaluate", { expression: RESOURCES }), late]);
console.log(`the main thread waits for: ${result.value}`);
process.exit();
