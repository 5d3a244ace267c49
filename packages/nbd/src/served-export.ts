import type { DeviceParams, Target } from "@blksnap/ublk";
import { NbdError } from "./errors.js";
import {
  allData,
  type ExportDescription,
  type ExportDirectory,
  type MetaContext,
  transmissionFlags,
} from "./exports.js";
import { BASE_ALLOCATION, Limit, TransmissionFlag } from "./protocol.js";

/** How to export a target. */
export interface ExportOptions {
  /** The name that clients request; the first export of a server, and one without a name, is the default export. */
  readonly name: string;
  readonly description?: string;
  /** Default true: clients cannot write, even if the target can. */
  readonly readOnly?: boolean;
  /** Clients of a read-only export may trim what they have read, if the target supports it. Default: false. */
  readonly releases?: boolean;
  /** Contexts besides `base:allocation`, which reports only data unless it is among them. */
  readonly contexts?: readonly MetaContext[];
}

/** An export with the target that serves it. */
export class ServedExport implements ExportDescription {
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly preferredBlockBytes: number;
  readonly flags: number;
  readonly contexts: readonly MetaContext[];
  readonly readOnly: boolean;
  readonly params: DeviceParams;
  readonly target: Target;

  /** @throws NbdError BAD_EXPORT */
  constructor(options: ExportOptions, params: DeviceParams, target: Target) {
    const { name, description = "", contexts = [] } = options;
    const tooLong = [name, description, ...contexts.map((one) => one.name)].find(
      (text) => Buffer.byteLength(text) > Limit.NAME_BYTES || text.includes("\0"),
    );
    if (tooLong !== undefined) {
      const shown = `${tooLong.slice(0, 40)}...`;
      throw new NbdError("BAD_EXPORT", `a name is longer than 4096 bytes, or has a NUL: ${shown}`);
    }
    this.name = name;
    this.description = description;
    this.sizeBytes = params.capacityBytes;
    this.blockBytes = params.logicalBlockBytes;
    this.preferredBlockBytes = Math.min(Math.max(params.ioMinBytes, 4096), 64 << 10);
    this.readOnly = (options.readOnly ?? true) || params.readOnly;
    this.params = params;
    this.target = target;
    this.flags = transmissionFlags({
      readOnly: this.readOnly,
      rotational: params.rotational,
      trims: params.discardMaxBytes > 0,
      releases: options.releases ?? false,
    });
    const hasAllocation = contexts.some((one) => one.name === BASE_ALLOCATION);
    this.contexts = hasAllocation ? contexts : [allData(), ...contexts];
  }

  can(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  get trims(): boolean {
    return this.can(TransmissionFlag.SEND_TRIM);
  }
}

export class ServedExports implements ExportDirectory<ServedExport> {
  readonly #exports = new Map<string, ServedExport>();

  /** @throws NbdError BAD_EXPORT: the name is taken */
  add(served: ServedExport): void {
    if (this.#exports.has(served.name)) {
      throw new NbdError("BAD_EXPORT", `there are two exports named "${served.name}"`);
    }
    this.#exports.set(served.name, served);
  }

  remove(name: string): ServedExport | undefined {
    const served = this.#exports.get(name);
    this.#exports.delete(name);
    return served;
  }

  find(name: string): ServedExport | undefined {
    if (name !== "") return this.#exports.get(name);
    return this.#exports.get("") ?? this.#exports.values().next().value;
  }

  all(): Iterable<ServedExport> {
    return this.#exports.values();
  }
}
