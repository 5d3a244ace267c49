/** Checks of the kernel: its version, ublk, io_uring. */
import type { UblkFeature } from "@blksnap/ublk";
import { error, type Finding, ok, warning } from "./finding.js";
import type { HostFiles } from "./host-files.js";

const OLDEST: readonly [major: number, minor: number] = [6, 5];

interface KernelDefect {
  readonly matches: RegExp;
  readonly state: "warning" | "error";
  readonly what: string;
  readonly fixedIn: string;
}

/** Defects of released kernels that affect blksnap. */
const DEFECTS: readonly KernelDefect[] = [
  {
    matches: /^6\.[56](\.|-|$)/,
    state: "warning",
    what: "a daemon's death is noticed up to 5 s late, and its devices wait that much longer",
    fixedIn: "6.7",
  },
  {
    matches: /^6\.8\.0-\d+/,
    state: "error",
    what: "CVE-2025-37906: the kernel may panic when a ublk device is closed under load",
    fixedIn: "6.15",
  },
  {
    matches: /^6\.17(\.\d+)?-.*aws/,
    state: "error",
    what: "the kernel may oops when a ublk device is added (queues are set up before the tag set)",
    fixedIn: "later 6.17 and 6.18 releases",
  },
  {
    matches: /^6\.18\.4(\D|$)/,
    state: "error",
    what: "the kernel may oops when a ublk device is added (queues are set up before the tag set)",
    fixedIn: "later 6.18 releases",
  },
  {
    matches: /^(6\.18\.40|7\.0\.\d+)(\D|$)/,
    state: "warning",
    what: "io_uring may never run a ublk control command: attach and take may time out",
    fixedIn: "7.1",
  },
];

/** @param release in the form of uname(2) */
export function checkKernelVersion(release: string): Finding[] {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  if (major < OLDEST[0] || (major === OLDEST[0] && minor < OLDEST[1])) {
    const why = "its ublk driver lacks needed features";
    const what = `Linux ${release} is older than ${OLDEST.join(".")}`;
    return [error("kernel_version", what, why, "Boot Linux 6.5 or later, preferably 6.12")];
  }
  const found = DEFECTS.filter(({ matches }) => matches.test(release));
  if (found.length === 0) return [ok("kernel_version", `Linux ${release}`)];
  return found.map(({ state, what, fixedIn }) => ({
    check: "kernel_version",
    state,
    what: `Linux ${release} has a known defect`,
    why: what,
    hint: `Boot a kernel with the fix (${fixedIn})`,
  }));
}

/** @param isLoadable whether modprobe would find it */
export function checkModule(host: HostFiles, isLoadable: () => boolean): Finding {
  if (host.exists("/sys/module/ublk_drv")) return ok("ublk_module", "ublk_drv is loaded");
  const why = "without it there are no fronts and no images";
  if (isLoadable()) {
    return warning("ublk_module", "ublk_drv is not loaded", why, "modprobe ublk_drv");
  }
  const hint =
    "Install the kernel's extra modules, or a kernel with CONFIG_BLK_DEV_UBLK; or run blksnapd --frontend nbd";
  return error("ublk_module", "ublk_drv is not installed for this kernel", why, hint);
}

/** The result of opening /dev/ublk-control. */
export type ControlAccess =
  | { readonly features: number }
  | { readonly problem: string; readonly code: string };

const NEEDED: readonly (keyof typeof UblkFeature)[] = [
  "USER_RECOVERY",
  "USER_RECOVERY_REISSUE",
  "CMD_IOCTL_ENCODE",
];

/** @param bits of the features, by name */
export function checkControl(access: ControlAccess, bits: typeof UblkFeature): Finding[] {
  if ("problem" in access) {
    const why = "all devices are created and removed through it";
    const hint = access.code === "UBLK_NOT_PERMITTED" ? "Run as root" : "modprobe ublk_drv";
    return [error("ublk_control", `/dev/ublk-control: ${access.problem}`, why, hint)];
  }
  const control = ok("ublk_control", "/dev/ublk-control answers");
  const missing = NEEDED.filter((name) => (access.features & bits[name]) === 0);
  if (missing.length === 0) {
    const offered = Object.entries(bits).filter(([, bit]) => (access.features & bit) !== 0);
    const names = offered.map(([name]) => name).join(" ");
    return [control, ok("ublk_features", `offered: ${names}`)];
  }
  const what = `the ublk driver lacks ${missing.join(", ")}`;
  const why = "devices would not survive their daemon";
  return [control, error("ublk_features", what, why, "Boot Linux 6.5 or later")];
}

/** @param makeRing creates a ring and closes it, or returns the problem */
export function checkIoUring(host: HostFiles, makeRing: () => string | undefined): Finding {
  const why = "all I/O goes through it";
  const disabled = host.text("/proc/sys/kernel/io_uring_disabled")?.trim() ?? "0";
  if (disabled === "2") {
    const what = "kernel.io_uring_disabled is 2: no program may use io_uring";
    return error(
      "io_uring",
      what,
      why,
      "sysctl kernel.io_uring_disabled=1, which allows root to use it",
    );
  }
  const problem = makeRing();
  if (problem === undefined) {
    const group = host.text("/proc/sys/kernel/io_uring_group")?.trim();
    const limit = disabled === "1" ? ` (limited to root and group ${group})` : "";
    return ok("io_uring", `io_uring works${limit}`);
  }
  const hint =
    disabled === "1" ? "Run as root" : "Allow io_uring_setup in the seccomp filter of the service";
  return error("io_uring", `io_uring does not work: ${problem}`, why, hint);
}
