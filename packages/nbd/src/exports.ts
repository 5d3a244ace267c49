/** Exports of a server, as the handshake describes them. */
import { BASE_ALLOCATION, TransmissionFlag } from "./protocol.js";

/**
 * A context of the protocol: one view of the state of an export's blocks. The reactor's thread calls it for each
 * request for block status, so it must answer from memory.
 */
export interface MetaContext {
  /** Such as `base:allocation` or `qemu:dirty-bitmap:NAME`. */
  readonly name: string;
  /** Most bytes that one reply covers, if finding runs is expensive. */
  readonly reachBytes?: number;
  /** Flags of the run that runBytes() returned last. */
  readonly flags: number;
  /**
   * Finds the run of blocks with the same flags that begins at `offsetBytes`.
   * @returns its length, at least one, at most up to `endBytes`
   */
  runBytes(offsetBytes: number, endBytes: number): number;
}

/** The handshake's description of a context. */
export interface ContextName extends Pick<MetaContext, "name"> {
  /** Found only by its whole name: a longer alias of a listed one. */
  readonly isUnlisted?: boolean;
}

/** The handshake's description of an export. */
export interface ExportDescription {
  /** At most 4096 bytes of UTF-8; the name that clients request. */
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  /** Offsets and lengths of requests are multiples of it: a power of two, 512 or more. */
  readonly blockBytes: number;
  readonly preferredBlockBytes: number;
  /** TransmissionFlag bits, except those that depend on the client: SEND_DF, BLOCK_STATUS_PAYLOAD. */
  readonly flags: number;
  readonly contexts: readonly ContextName[];
}

/** The current exports. */
export interface ExportDirectory<Export extends ExportDescription> {
  /** The empty name is that of the default export. */
  find(name: string): Export | undefined;
  all(): Iterable<Export>;
}

export interface Abilities {
  readonly readOnly: boolean;
  readonly rotational: boolean;
  readonly trims: boolean;
  /** For a read-only export: clients may trim what they have read, but write nothing. */
  readonly releases?: boolean;
}

/** Flags of read-only exports are those of qemu-nbd. */
export function transmissionFlags(abilities: Abilities): number {
  const { HAS_FLAGS, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN, SEND_CACHE } = TransmissionFlag;
  const common = HAS_FLAGS | SEND_FLUSH | SEND_FUA | CAN_MULTI_CONN | SEND_CACHE;
  const rotational = abilities.rotational ? TransmissionFlag.ROTATIONAL : 0;
  const trim = abilities.trims ? TransmissionFlag.SEND_TRIM : 0;
  if (abilities.readOnly) {
    const release = abilities.releases === true ? trim : 0;
    return common | rotational | release | TransmissionFlag.READ_ONLY;
  }
  return common | rotational | trim | TransmissionFlag.SEND_WRITE_ZEROES;
}

/** Names of a namespace that a client may list as a whole. */
const WILDCARDS = ["base:", "qemu:", "qemu:dirty-bitmap:"];

/** The contexts that match queries; without any, all for a list, and none for a selection. */
export function matchingContexts<Context extends ContextName>(
  contexts: readonly Context[],
  queries: readonly string[],
  lists: boolean,
): Context[] {
  if (queries.length === 0) return lists ? contexts.filter((one) => one.isUnlisted !== true) : [];
  return contexts.filter(({ name, isUnlisted = false }) =>
    queries.some((query) => {
      const isOfMany = lists && !isUnlisted && WILDCARDS.includes(query);
      return query === name || (isOfMany && name.startsWith(query));
    }),
  );
}

/** A constant context: consecutive runs of blocks with flags, from offset 0 on. */
export class FixedContext implements MetaContext {
  readonly name: string;
  flags = 0;
  readonly #ends: Float64Array;
  readonly #flags: Uint32Array;

  /**
   * @param ends where each run ends, ascending; flags are 0 after the last one
   * @param flags of each run
   */
  constructor(name: string, ends: Float64Array, flags: Uint32Array) {
    this.name = name;
    this.#ends = ends;
    this.#flags = flags;
  }

  runBytes(offsetBytes: number, endBytes: number): number {
    const ends = this.#ends;
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (ends[middle] <= offsetBytes) low = middle + 1;
      else high = middle;
    }
    if (low === ends.length) {
      this.flags = 0;
      return endBytes - offsetBytes;
    }
    this.flags = this.#flags[low];
    return Math.min(ends[low], endBytes) - offsetBytes;
  }
}

/** Everything is data, which is always a valid answer. */
export function allData(): MetaContext {
  return new FixedContext(BASE_ALLOCATION, new Float64Array(0), new Uint32Array(0));
}
