/** What a server has to offer, as the handshake tells it. */
import { BASE_ALLOCATION, TransmissionFlag } from "./protocol.js";

/**
 * The state of an export's blocks, from one point of view: a context of the protocol. It is asked on the
 * reactor's thread for each request for block status, and must answer from memory.
 */
export interface MetaContext {
  /** Such as `base:allocation` or `qemu:dirty-bitmap:NAME`. */
  readonly name: string;
  /** How much of the export one answer covers at most, where finding runs is long work. */
  readonly reachBytes?: number;
  /** Flags of the run that runBytes() found last. */
  readonly flags: number;
  /**
   * Finds the run of blocks with the same flags that begins at `offsetBytes`.
   * @returns its length, at most to `endBytes`, at least one
   */
  runBytes(offsetBytes: number, endBytes: number): number;
}

/** What a client is told of a context. */
export interface ContextName extends Pick<MetaContext, "name"> {
  /** Found by its whole name alone: another, longer name of one that is listed. */
  readonly isUnlisted?: boolean;
}

/** What a client is told of an export. */
export interface ExportDescription {
  /** At most 4096 bytes of UTF-8; what clients ask for. */
  readonly name: string;
  readonly description: string;
  readonly sizeBytes: number;
  /** Offsets and lengths of requests are multiples of it: a power of two, 512 or more. */
  readonly blockBytes: number;
  readonly preferredBlockBytes: number;
  /** TransmissionFlag bits, without those that hang on what the client asks for: SEND_DF, BLOCK_STATUS_PAYLOAD. */
  readonly flags: number;
  readonly contexts: readonly ContextName[];
}

/** What is exported now. */
export interface ExportDirectory<Export extends ExportDescription> {
  /** The empty name is that of the default export. */
  find(name: string): Export | undefined;
  all(): Iterable<Export>;
}

export interface Abilities {
  readonly readOnly: boolean;
  readonly rotational: boolean;
  readonly trims: boolean;
  /** Of a read-only one: clients may trim what they have read, and write nothing. */
  readonly releases?: boolean;
}

/** Read-only exports have the flags that those of qemu-nbd have. */
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

/** Names of a namespace that a client may ask for as a whole, when it lists. */
const WILDCARDS = ["base:", "qemu:", "qemu:dirty-bitmap:"];

/** The contexts that queries ask for: without any, all when listing, and none when selecting. */
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

/** A context that does not change: runs of blocks with flags, one behind the other from offset 0 on. */
export class FixedContext implements MetaContext {
  readonly name: string;
  flags = 0;
  readonly #ends: Float64Array;
  readonly #flags: Uint32Array;

  /**
   * @param ends where each run ends, ascending; what lies behind the last has flags 0
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

/** All of it holds data: what may always be said. */
export function allData(): MetaContext {
  return new FixedContext(BASE_ALLOCATION, new Float64Array(0), new Uint32Array(0));
}
