/** Hooks around a take, on a mounted file system; and the events of the daemon, through its death. */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { ctl } from "../lib/ctl.mjs";
import { Daemon } from "../lib/daemon.mjs";
import { ramDisks } from "../lib/disks.mjs";
import { makeFileSystem, mount, mountImage } from "../lib/file-systems.mjs";
import { scenario } from "../lib/scenario.mjs";
import { MIB } from "../lib/snapshots.mjs";
import { until } from "../lib/wait.mjs";

const test = scenario(import.meta.url, { daemon: false, sampledIn: 2 });
const SIZE_BYTES = 32 * MIB;

function hook(folder, name, text) {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o755);
}

async function events(...args) {
  const { status, stdout, stderr } = await ctl("events", "--all", "--json", ...args);
  assert.is(status, 0, stderr);
  return stdout === ""
    ? []
    : stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line));
}

/** The events after one, once those of a kind have come. */
async function eventsUntil(kind, ...args) {
  let found = [];
  await until(`the event ${kind}`, async () => {
    found = await events(...args);
    return found.some(({ event }) => event === kind);
  });
  return found;
}

test("hooks run before the freeze and after the thaw; events continue with the next daemon", async (t) => {
  const hooks = join(t.folder, "hooks.d");
  mkdirSync(hooks, { mode: 0o755 });
  t.defer(() => rmSync(hooks, { recursive: true }));
  const args = ["--hooks-dir", hooks];
  const [disk] = await ramDisks(t, 1, SIZE_BYTES);
  const first = await Daemon.startFor(t, { args });
  const { front } = await first.client.attach(disk);
  await makeFileSystem("ext4", front);
  const { path, unmount } = await mount(t, front);
  // It writes to the file system that is frozen in between: before it, the image has it; after it, not.
  hook(hooks, "10-note", `echo "$@" >"${path}/$1" && sync "${path}/$1"`);
  const create = { devices: [disk], stores: ["memory:"], limitBytes: 64 * MIB };
  const { id } = await first.client.snapshotCreate(create);
  const { images } = await first.client.snapshotTake(id);
  assert.is(readFileSync(join(path, "post"), "utf8"), `post take ${id} ${disk}\n`);
  const image = await mountImage(t, "ext4", images[0].image, ["ro"]);
  assert.is(readFileSync(join(image.path, "pre"), "utf8"), `pre take ${id} ${disk}\n`);
  assert.not(existsSync(join(image.path, "post")));
  await image.unmount();

  await first.client.snapshotDestroy(id);
  hook(hooks, "20-fails", '[ "$1" = post ] || { echo "no room" >&2; exit 7; }');
  const again = await first.client.snapshotCreate(create);
  const refused = await first.client.snapshotTake(again.id).then(
    () => undefined,
    (error) => error,
  );
  assert.is(refused?.code, "HOOK_FAILED");
  assert.match(refused.message, /20-fails before the take: exit status 7: no room$/);
  assert.is((await first.client.snapshot(again.id)).taken, false);
  await first.client.snapshotDestroy(again.id);

  const told = await eventsUntil("take_failed");
  const kinds = told.map(({ event }) => event);
  for (const kind of ["daemon_started", "attached", "snapshot_taken", "hook_ran", "hook_failed"]) {
    assert.ok(kinds.includes(kind), `${kind} in ${kinds.join(", ")}`);
  }
  const { sequence, log } = (await eventsUntil("snapshot_destroyed")).at(-1);
  first.kill("SIGKILL");
  await first.ended();
  const next = await Daemon.startFor(t, { name: "next", args });
  const since = `${log}:${sequence}`;
  const later = await eventsUntil("resumed", "--since", since);
  const [started] = later.filter(({ event }) => event === "daemon_started");
  assert.is(started.cause, "crash");
  assert.ok(later.every((event) => event.log === log && event.sequence > sequence));
  assert.not(later.some(({ event }) => event === "lost"));
  await unmount();
  await next.client.detach(disk);
  await eventsUntil("detached", "--since", since);
  await next.stop();
});

test.run();
