/**
 * Uses the API's description as a third party would: a linter finds no fault, and a client generated from it by a
 * common generator type-checks and works.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { createConfig, lintFromString } from "@redocly/openapi-core";
import { transform } from "esbuild";
import { generateApi } from "swagger-typescript-api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { ask, type Harness, startHarness } from "./control-harness.js";

async function descriptionOf({ socketPath }: Harness): Promise<string> {
  return (await ask(socketPath, "/v1/openapi.json")).bytes.toString();
}

test("a linter finds nothing in the description", async () => {
  const harness = await startHarness();
  const source = await descriptionOf(harness);
  await harness.stop();
  const config = await createConfig({ extends: ["recommended-strict"] });
  async function faults(text: string): Promise<string[]> {
    const found = await lintFromString({ source: text, absoluteRef: "/openapi.json", config });
    return found.map(({ ruleId, message }) => `${ruleId}: ${message}`);
  }
  assert.equal(await faults(source), []);
  // The linter does find faults.
  const spoilt = await faults(source.replace('"operationId":"attach",', ""));
  assert.is(spoilt.length, 1);
  assert.match(spoilt[0]!, /^operation-operationId: /);
});

/** How a program uses the generated client; compiled beside it, so its types are checked, too. */
const PROGRAM = `
import { Api, type ErrorResponse, type SnapshotEvent } from "./api.js";

const api = new Api({ customFetch: globalThis.socketFetch });

const failed: ErrorResponse = await api.v1
  .getTracker({ device: "/dev/loop0" })
  .then(() => Promise.reject(new Error("it is not attached")), (answer) => answer.error);
// An error's name is one of a list: another word would not compile.
const isNotAttached = failed.error.name === "NOT_ATTACHED";

const { data: attached } = await api.v1.attach({ device: "/dev/loop0" });
const { data: tracker } = await api.v1.getTracker({ device: "/dev/loop0" });
const { data: created } = await api.v1.createSnapshot({
  devices: ["/dev/loop0"],
  stores: ["memory:"],
  limit_bytes: 1 << 20,
  on_overflow: { policy: "fail-writes" },
});
const { data: taken } = await api.v1.takeSnapshot(created.id);
const { data: snapshot } = await api.v1.getSnapshot(created.id);
const ranges = [{ offset_bytes: 65_536, length_bytes: 512 }];
await api.v1.markDirty({ device: "/dev/loop0", ranges });
const { data: diff } = await api.v1.diff({ device: "/dev/loop0", since: 0 });
const kinds: ("changed" | "discarded")[] = diff.ranges.map(({ kind }) => kind);
const { data: waited } = await api.v1.waitEvent(created.id, { timeout_ms: 0 });
const event: SnapshotEvent | undefined = waited.result === "ok" ? waited.event : undefined;
await api.v1.destroySnapshot(created.id);
const { data: detached } = await api.v1.detach({ device: "/dev/loop0" });
export const seen = {
  isNotAttached, attached, tracker, created, taken, snapshot, kinds, event, detached,
};
`;

const GLOBALS = `declare global { var socketFetch: typeof fetch; }\nexport {};\n`;

/** `fetch` over a Unix socket, which Node's own does not support. */
function socketFetch(socketPath: string): typeof fetch {
  return async (url, options = {}) => {
    const { method = "GET", headers, body } = options;
    const { pathname, search } = new URL(String(url));
    const given = headers as Record<string, string> | undefined;
    return await new Promise((done, fail) => {
      const path = `${pathname}${search}`;
      const outgoing = request({ socketPath, path, method, agent: false, headers: given ?? {} });
      outgoing.on("error", fail);
      outgoing.on("response", async (incoming) => {
        let text = "";
        for await (const part of incoming) text += part;
        done(new Response(text, { status: incoming.statusCode ?? 0 }));
      });
      outgoing.end(body as string | undefined);
    });
  };
}

async function generate(spec: string, folder: string): Promise<void> {
  const { files } = await generateApi({
    // The generator's own type describes OpenAPI 3.0.
    spec: JSON.parse(spec),
    output: false,
    silent: true,
    httpClientType: "fetch",
  });
  assert.is(files.length, 1);
  writeFileSync(join(folder, "api.ts"), files[0]!.fileContent);
  writeFileSync(join(folder, "globals.ts"), GLOBALS);
  writeFileSync(join(folder, "program.ts"), PROGRAM);
}

function typeCheck(folder: string, file: string): void {
  const require = createRequire(import.meta.url);
  const compiler = join(dirname(require.resolve("typescript/package.json")), "bin", "tsc");
  const options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext"];
  const types = ["--lib", "es2022,dom", "--types", "", "--skipLibCheck", "--ignoreConfig"];
  execFileSync(process.execPath, [compiler, ...options, ...types, file, "globals.ts"], {
    cwd: folder,
    encoding: "utf8",
  });
}

test("a generated client is typed, and works", async () => {
  const harness = await startHarness();
  const folder = mkdtempSync(join(import.meta.dirname, "generated-"));
  try {
    await generate(await descriptionOf(harness), folder);
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    typeCheck(folder, "program.ts");
    writeFileSync(join(folder, "wrong.ts"), PROGRAM.replace("NOT_ATTACHED", "NOT_ATACHED"));
    assert.throws(() => typeCheck(folder, "wrong.ts"), /NOT_ATACHED|Command failed/);
    for (const name of ["api", "program"]) {
      const source = readFileSync(join(folder, `${name}.ts`), "utf8");
      const { code } = await transform(source, { loader: "ts", format: "esm" });
      writeFileSync(join(folder, `${name}.js`), code);
    }
    Object.assign(globalThis, { socketFetch: socketFetch(harness.socketPath) });
    const { seen } = await import(pathToFileURL(join(folder, "program.js")).href);
    assert.is(seen.isNotAttached, true);
    assert.is(seen.attached.front, "/dev/ublkb0");
    assert.equal([seen.tracker.device, seen.tracker.front_live], ["/dev/loop0", true]);
    assert.equal(seen.taken.images, [{ device: "/dev/loop0", image: "/dev/ublkb1" }]);
    assert.equal([seen.snapshot.id, seen.snapshot.taken], [seen.created.id, true]);
    assert.equal(seen.snapshot.on_overflow, { policy: "fail-writes" });
    assert.equal(seen.kinds, ["changed"]);
    assert.is(seen.event, undefined);
    assert.equal(seen.detached, { device: "/dev/loop0", front: "/dev/ublkb0" });
  } finally {
    rmSync(folder, { recursive: true, force: true });
    await harness.stop();
  }
});

test.run();
