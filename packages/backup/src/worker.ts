/** A thread that hashes and compresses chunks, one after the other. */
import { createHash } from "node:crypto";
import { parentPort } from "node:worker_threads";
import { ownBuffers } from "./own-buffers.js";
import { type PartsAnswer, type PartsRequest, takeParts } from "./part-writes.js";
import { type BlockWindow, isZero, sumsOf } from "./sums.js";
import { nativeZstd, wasmZstd, type Zstd } from "./zstd.js";
import { frameContentBytes, storedPieces } from "./zstd-frame.js";

export type ChunkRequest =
  | PartsRequest
  | { readonly kind: "digest"; readonly data: Uint8Array<ArrayBuffer> }
  | { readonly kind: "sums"; readonly data: Uint8Array<ArrayBuffer>; readonly window: BlockWindow }
  | { readonly kind: "pack"; readonly data: Uint8Array<ArrayBuffer>; readonly isHashed: boolean }
  | { readonly kind: "unpack"; readonly data: Uint8Array; readonly lengthBytes: number };

export interface ChunkAnswer {
  /** The sent data again, or the content of a compressed chunk. */
  readonly data?: Uint8Array<ArrayBuffer>;
  /** SHA-256 in hexadecimal; null for a chunk of zeros. */
  readonly hash?: string | null;
  /** Sums of the blocks in the window; null if all data were zeros. */
  readonly sums?: Uint32Array | null;
  readonly parts?: PartsAnswer;
  /** Undefined: hardly compressible, to be stored as it is. */
  readonly packed?: Uint8Array;
  /** SHA-256 of `packed`, in hexadecimal, if requested. */
  readonly packedHash?: string;
  /** Why a compressed chunk cannot be decompressed. */
  readonly fault?: string;
}

function digest(data: Uint8Array): string | null {
  return isZero(data) ? null : createHash("sha256").update(data).digest("hex");
}

function unpack(zstd: Zstd, packed: Uint8Array, lengthBytes: number): ChunkAnswer {
  // The library trusts the length in the frame.
  if (frameContentBytes(packed) !== lengthBytes)
    return { fault: "it is not a chunk of this length" };
  try {
    const data = zstd.decompress(packed, lengthBytes);
    return data.length === lengthBytes
      ? { data, hash: digest(data) }
      : { fault: "it ends too early" };
  } catch (error) {
    return { fault: (error as Error).message };
  }
}

let opened: Zstd | Promise<Zstd> | undefined;

/** Created for the first chunk that needs it: copies without compression need not wait for its compilation. */
async function openedZstd(): Promise<Zstd> {
  opened ??= nativeZstd() ?? wasmZstd();
  return await opened;
}

async function answerTo(request: ChunkRequest): Promise<ChunkAnswer> {
  switch (request.kind) {
    case "parts":
      return { parts: takeParts(request) };
    case "digest":
      return { data: request.data, hash: digest(request.data) };
    case "sums":
      return { data: request.data, sums: sumsOf(request.data, request.window) };
    case "pack": {
      const { data, isHashed } = request;
      const compressed = (await openedZstd()).compress(data);
      if (!isHashed) return { data, ...(compressed && { packed: compressed }) };
      const packed = compressed ?? Buffer.concat(storedPieces(data));
      return { data, packed, packedHash: createHash("sha256").update(packed).digest("hex") };
    }
    case "unpack":
      return unpack(await openedZstd(), request.data, request.lengthBytes);
  }
}

parentPort?.on("message", async ({ id, request }: { id: number; request: ChunkRequest }) => {
  const answer = await answerTo(request);
  parentPort?.postMessage({ id, answer }, ownBuffers(answer.data, answer.packed));
});
