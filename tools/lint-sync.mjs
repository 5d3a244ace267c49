/**
 * Checks that no thread of the daemon waits for users' file systems: one that does not answer would stop what the
 * thread does for all devices. Files that make synchronous calls of `node:fs`, or lock files synchronously, are listed
 * here, with what they call them on. For the rest there are `node:fs/promises` with bounded(), or, where a call may
 * hang for good, the helpers of uring/src/apart.ts.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const PACKAGES = [
  ...["api", "api-server", "daemon", "data-plane", "diff-storage", "driver", "engine", "errors"],
  ...["event-queue", "journal", "linux-block", "nbd", "ublk", "uring"],
];
const IMPORT = /import\s+(type\s+)?([^;]*?)\s+from\s+"([^"]+)"/g;
const SYNCHRONOUS = /\b(\w+Sync|tryLockFile|tryFlock)\b|\* as/;
const SOURCES = ["node:fs", "@blksnap/uring"];

/** By what the calls are on. */
const LISTED = {
  "files of the kernel: below /proc, /sys and /dev, and descriptors of them": [
    ...["api-server/src/socket.ts", "daemon/src/process-setup.ts", "daemon/src/restarter.ts"],
    ...["daemon/src/supervisor.ts", "diff-storage/src/command-system.ts"],
    ...["driver/src/tracker/original.ts", "driver/src/tracker/splice-watch.ts"],
    ...["linux-block/src/continuity/boot-mark.ts", "linux-block/src/continuity/device-marks.ts"],
    ...["linux-block/src/device-mapper/splice-state.ts", "linux-block/src/freeze/freeze-entry.ts"],
    ...["linux-block/src/names/device-links.ts", "linux-block/src/stack/device-users.ts"],
    ...["linux-block/src/stack/loop-table.ts", "linux-block/src/stack/mounts.ts"],
    ...["linux-block/src/stack/path-target.ts", "linux-block/src/stack/sysfs-device.ts"],
    ...["linux-block/src/sysfs-text.ts", "ublk/src/control.ts", "ublk/src/device.ts"],
    ...[
      "ublk/src/partitions.ts",
      "ublk/src/recoverable-device.ts",
      "uring/src/listening-socket.ts",
    ],
    ...["daemon/src/config/attach-configured.ts"],
  ],
  "files below /run, which is memory": [
    ...["api/src/socket-path.ts", "linux-block/src/continuity/end-of-boot.ts"],
    ...["linux-block/src/device-mapper/dmsetup.ts", "linux-block/src/device-mapper/lvm-lock.ts"],
    // Passes on the lock's call.
    ...["linux-block/src/names/udev-marks.ts", "driver/src/tracker/live-attach.ts"],
  ],
  "the state directory, which is memory, and maps in it": [
    ...["daemon/src/config/served.ts", "daemon/src/events/daemon-log.ts"],
    ...["daemon/src/hooks/take-hooks.ts", "daemon/src/replace-file.ts"],
    ...["data-plane/src/copy-places.ts"],
    ...["data-plane/src/new-map.ts", "driver/src/records/map-memory.ts"],
    ...["driver/src/records/state-directory.ts", "driver/src/recovery/resume.ts"],
    ...["driver/src/tracker/cbt-file.ts", "driver/src/tracker/live-exchange.ts"],
    ...["event-queue/src/kept-queue.ts"],
  ],
  "other memory, sockets, pipes and eventfds": [
    ...["daemon/src/nbd-listeners.ts", "daemon/src/nbd-socket.ts"],
    ...["daemon/src/passed-sockets.ts", "data-plane/src/warm-up.ts"],
    ...["nbd/src/reactor-server.ts", "nbd/src/reception.ts", "nbd/src/server.ts"],
    ...["ublk/src/driver-stand-in.ts", "ublk/src/targets/memory.ts", "uring/src/reactor-thread.ts"],
  ],
  "the program's own files and configuration": [
    ...["daemon/src/config/config-texts.ts", "daemon/src/user-paths.ts"],
    ...["driver/src/version.ts"],
    ...["linux-block/src/freeze/freeze-guard.ts", "uring/src/addon-file.ts"],
  ],
  "the log, which a reader may hold up for a limited time": [
    ...["daemon/src/log.ts", "driver/src/tracker/own-places.ts", "uring/src/unblocked-writer.ts"],
  ],
  "anything, in a process or thread that serves no device": [
    ...["daemon/src/doctor/doctor.ts", "daemon/src/doctor/host-files.ts"],
    ...["daemon/src/doctor/leftovers.ts", "daemon/src/doctor/surroundings.ts"],
    ...["daemon/src/install-units.ts", "nbd/src/tls-files.ts"],
  ],
  "the lock of the persistent directory, when nothing is served any more": [
    "driver/src/records/persistent-directory.ts",
  ],
  "the file of a single device, for users of the package; the daemon calls openBackingFileBeside()":
    ["ublk/src/backing-file.ts", "ublk/src/targets/file.ts"],
};

function callers() {
  const files = PACKAGES.flatMap((name) => {
    const inside = readdirSync(join("packages", name, "src"), { recursive: true });
    return inside.filter((file) => file.endsWith(".ts")).map((file) => `${name}/src/${file}`);
  });
  return files.filter((file) =>
    [...readFileSync(join("packages", file), "utf8").matchAll(IMPORT)].some(
      ([, type, names, source]) =>
        type === undefined && SOURCES.includes(source) && SYNCHRONOUS.test(names),
    ),
  );
}

export function syncProblems() {
  const listed = new Set(Object.values(LISTED).flat());
  const found = new Set(callers());
  const hint = "use node:fs/promises with a time limit, or list it in tools/lint-sync.mjs";
  return [
    ...[...found]
      .filter((file) => !listed.has(file))
      .map((file) => `packages/${file} makes synchronous calls on files: ${hint}`),
    ...[...listed]
      .filter((file) => !found.has(file))
      .map((file) => `tools/lint-sync.mjs lists ${file}, which makes no synchronous calls`),
  ];
}
