/** Identifies the host of a backup. */
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";

/** Hosts that share a store may have the same name, such as clones of a machine and "localhost". */
export interface HostIdentity {
  readonly host: string;
  /** Absent if the host has none, and in data of earlier programs. */
  readonly machine_id?: string | undefined;
}

export interface HostOptions {
  /** Default: this host's name. */
  readonly host?: string | undefined;
  /** Default: derived from this host's; none if it has none. */
  readonly machineId?: string | undefined;
}

const MACHINE_ID = /^[0-9a-f]{32}$/;
/** Key of the hash: the same for all programs that name hosts in backups. */
const APPLICATION = "blksnap-backup";
/** A shorter prefix of a machine id may be ambiguous. */
const MACHINE_ID_MIN = 4;

/** machine-id(5) of this host; "" if there is none, as in a container. */
export function ownMachine(): string {
  try {
    return readFileSync("/etc/machine-id", "utf8").trim();
  } catch {
    return "";
  }
}

/**
 * The public form of a machine's id: by machine-id(5) the id is confidential, and only a keyed hash may be published.
 */
export function publicMachineId(machine: string): string | undefined {
  if (!MACHINE_ID.test(machine)) return undefined;
  return createHmac("sha256", machine).update(APPLICATION).digest("hex").slice(0, 32);
}

export function hostOf({ host = hostname(), machineId }: HostOptions): HostIdentity {
  return { host, machine_id: machineId ?? publicMachineId(ownMachine()) };
}

/** Compares the known parts. */
export function isSameHost(one: HostIdentity, other: HostIdentity): boolean {
  if (one.host !== other.host) return false;
  const [machine, otherMachine] = [one.machine_id, other.machine_id];
  return machine === undefined || otherMachine === undefined || machine === otherMachine;
}

/** Two machines with the same name: clones, or one whose id is new at each boot. */
export function isOtherMachine(one: HostIdentity, other: HostIdentity): boolean {
  return one.host === other.host && !isSameHost(one, other);
}

/** Why no chain continues for this device, if the store has backups of another machine with the same name. */
export function otherMachineNote(
  states: readonly (HostIdentity & { readonly device: string })[],
  host: HostIdentity,
  device: string,
): string | undefined {
  const ofDevice = states.filter((state) => state.device === device);
  const other = ofDevice.findLast((state) => isOtherMachine(state, host));
  if (other === undefined || ofDevice.some((state) => isSameHost(state, host))) return undefined;
  return (
    `the backups of ${device} there are of ${hostText(other)}, and this is ${hostText(host)}. ` +
    "If /etc/machine-id is new at each boot, boot with systemd.machine_id=ID, which lasts"
  );
}

/** Whether a user's choice means this host: its name, or the beginning of its machine id. */
export function isHostNamed({ host, machine_id }: HostIdentity, name: string): boolean {
  if (host === name) return true;
  return name.length >= MACHINE_ID_MIN && machine_id?.startsWith(name) === true;
}

/** For messages. */
export function hostText({ host, machine_id }: HostIdentity): string {
  return machine_id === undefined ? host : `${host} (machine ${machine_id.slice(0, 8)})`;
}

/**
 * Gives points of one device of one host the same key. Points of an earlier program have no machine id; they belong
 * to the only machine with this host's name, if there is only one.
 * @param isAll false: there are unreadable points, perhaps of other machines; then they belong to none
 */
export function chainKeys<Point extends HostIdentity & { readonly device: string }>(
  points: readonly Point[],
  isAll = true,
): (point: Point) => string {
  const named = ({ host, device }: Point): string => `${host}\n${device}`;
  const machines = new Map<string, Set<string>>();
  for (const point of points) {
    if (point.machine_id === undefined) continue;
    const known = machines.get(named(point)) ?? new Set();
    machines.set(named(point), known.add(point.machine_id));
  }
  return (point) => {
    const name = named(point);
    const known = machines.get(name);
    const only = isAll && known?.size === 1 ? [...known][0] : undefined;
    return `${name}\n${point.machine_id ?? only ?? ""}`;
  };
}
