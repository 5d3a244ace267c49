/** Who holds a lock: a process, identified among all processes of all hosts. */
import { randomUUID } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { readBootIdSync } from "@blksnap/linux-block";
import { BackupError } from "./errors.js";
import { ownMachine } from "./host.js";

export interface Holder {
  readonly token: string;
  readonly host: string;
  /** Hosts that share a store may have one name. */
  readonly machine: string;
  readonly boot: string;
  /** In which that number counts: containers may have one host name. */
  readonly namespace: string;
  readonly pid: number;
  /** When the process began, in ticks of this boot: numbers of processes come again. */
  readonly began: string;
  readonly what: string;
}

function readOr(path: string, other: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return other;
  }
}

function ownBoot(): string {
  try {
    return readBootIdSync();
  } catch {
    return "";
  }
}

function beganOf(pid: number): string {
  // The second field is in parentheses, and may have blanks in it.
  const fields = readOr(`/proc/${pid}/stat`, "").split(") ").at(-1)!.split(" ");
  return fields[19] ?? "";
}

function ownNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

export function holderNow(what: string): Holder {
  const { pid } = process;
  const boot = ownBoot();
  const machine = ownMachine();
  const place = { host: hostname(), machine, boot, namespace: ownNamespace() };
  return { token: randomUUID(), ...place, pid, began: beganOf(pid), what };
}

export function parseHolder(text: string): Holder | undefined {
  try {
    const holder = JSON.parse(text) as Holder | null;
    return typeof holder?.token === "string" ? holder : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the process lives, as far as that can be known here: of another host it cannot. */
export function lifeOf(holder: Holder): "alive" | "gone" | "unknown" {
  const { host, machine, boot, namespace, pid, began } = holder;
  if (host !== hostname() || machine !== ownMachine()) return "unknown";
  // Containers without an identity may have one name on two machines.
  if (boot !== ownBoot()) return machine === "" ? "unknown" : "gone";
  if (namespace !== ownNamespace()) return "unknown";
  return beganOf(pid) === began ? "alive" : "gone";
}

/** @param wait what happens to the lock without intervention, for the hint */
export function busy(path: string, holder: Holder | undefined, wait = ""): BackupError {
  if (holder === undefined) {
    const hint = "Remove it, if no export runs";
    return new BackupError("BACKUP_BUSY", `the lock ${path} is not readable`, { hint });
  }
  const { what, pid, host } = holder;
  const hint = `Wait until it has ended; if ${host} is gone, remove ${path}${wait}`;
  const text = `${what}, by process ${pid} on ${host}, is in progress`;
  return new BackupError("BACKUP_BUSY", text, { hint });
}
