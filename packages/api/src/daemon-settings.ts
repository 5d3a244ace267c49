/** Settings of the daemon that do not concern the driver, as in setting-table.ts. */
import type { SettingTable } from "./setting-table.js";
import { DEFAULT_SOCKET_PATH } from "./socket-path.js";

export const DAEMON_SETTINGS = {
  config: {
    option: "config",
    type: "path",
    default: "/etc/blksnap/blksnap.toml",
    commandLineOnly: true,
    help: "configuration file; files *.toml in the folder of the same name with .d are read after it",
  },
  printConfig: {
    option: "print-config",
    type: "flag",
    commandLineOnly: true,
    help: "print all settings, the devices to attach, and where each comes from, and end",
  },
  json: {
    option: "json",
    type: "flag",
    commandLineOnly: true,
    help: "with --print-config: print it as JSON",
  },
  checkConfig: {
    option: "check-config",
    type: "flag",
    commandLineOnly: true,
    help:
      "print the configuration's mistakes as JSON and end; blksnapctl config check prints them " +
      "for people",
  },
  socket: {
    option: "socket",
    type: "path",
    defaultText: `$BLKSNAP_SOCKET or ${DEFAULT_SOCKET_PATH}`,
    help: "control socket",
  },
  metricsSocket: {
    option: "metrics-socket",
    type: "path",
    defaultText: "none",
    help:
      "extra socket that serves only /metrics, to root and the group blksnap-metrics; the " +
      "control socket serves it, too",
  },
  nbdListen: {
    option: "nbd-listen",
    type: "address",
    defaultText: "none",
    help:
      "accept NBD clients at this TCP address besides nbd.sock, such as 192.0.2.1:10809 or " +
      "[2001:db8::1]:10809; with --nbd-tls-certs, or --nbd-insecure",
  },
  nbdCertificates: {
    option: "nbd-tls-certs",
    type: "path",
    defaultText: "none",
    help:
      "folder with ca-cert.pem, server-cert.pem and server-key.pem for --nbd-listen, named as " +
      "for QEMU and nbdkit; clients need a certificate that ca-cert.pem has signed",
  },
  nbdAnyClient: {
    option: "nbd-any-client",
    type: "flag",
    default: false,
    help:
      "accept NBD clients at --nbd-listen without a certificate: any that can connect can read " +
      "all exports",
  },
  nbdWritable: {
    option: "nbd-writable",
    type: "flag",
    default: false,
    help:
      "let NBD clients at --nbd-listen write to exports that are writable at nbd.sock; otherwise " +
      "all are read-only",
  },
  nbdInsecure: {
    option: "nbd-insecure",
    type: "flag",
    default: false,
    help:
      "accept NBD clients at --nbd-listen without TLS; the address must be loopback: every user " +
      "of this machine can read all exports",
  },
  hooksDirectory: {
    option: "hooks-dir",
    type: "path",
    default: "/etc/blksnap/hooks.d",
    help: "programs that are run before and after each take, in the order of their names",
  },
  hookTimeoutMs: {
    option: "hook-timeout",
    type: "ms",
    least: 1,
    most: 600_000,
    default: 30_000,
    help:
      "time limit of all hooks before a take, and of all after it; a hook still running then is " +
      "killed",
  },
  logLevel: {
    option: "log-level",
    type: "level",
    default: "info",
    help: "trace, debug, info, warn, error",
  },
  stopsLast: {
    option: "stops-last",
    type: "flag",
    commandLineOnly: true,
    help:
      "set by a service that stops after everything that could write to the devices: a stop " +
      "during system shutdown is then the end of all writes",
  },
  keep: {
    option: "keep",
    type: "flag",
    help:
      "end at once on SIGTERM and leave fronts and images to the next daemon: their users wait " +
      "until it is started, and see no error",
  },
  doctor: {
    option: "doctor",
    type: "flag",
    commandLineOnly: true,
    help: "print this host's problems as JSON and end; blksnapctl doctor prints them for people",
  },
  fix: {
    option: "fix",
    type: "flag",
    commandLineOnly: true,
    help: "with --doctor: remove leftovers of blksnap",
  },
  installUnits: {
    option: "install-units",
    type: "flag",
    commandLineOnly: true,
    help:
      "write systemd units, the generator for fstab, udev rules and tmpfiles.d for programs that " +
      "npm has installed; as root",
  },
  uninstallUnits: {
    option: "uninstall-units",
    type: "flag",
    commandLineOnly: true,
    help: "remove what --install-units has written",
  },
  supervise: {
    option: "supervise",
    type: "flag",
    commandLineOnly: true,
    help: "keep a daemon running, and others ready to continue after a crash",
  },
  standbys: {
    option: "standbys",
    type: "count",
    least: 0,
    most: 8,
    default: 1,
    help: "with --supervise: daemons kept ready, 0 to 8",
  },
  version: {
    option: "version",
    type: "flag",
    commandLineOnly: true,
    help: "print the version and end",
  },
  help: {
    option: "help",
    type: "flag",
    commandLineOnly: true,
    help: "print this and end; also -h",
  },
  supervised: {
    option: "supervised",
    type: "flag",
    commandLineOnly: true,
    internal: true,
    help: "has a supervisor",
  },
  standby: {
    option: "standby",
    type: "flag",
    commandLineOnly: true,
    internal: true,
    help: "waits to continue",
  },
} as const satisfies SettingTable;
