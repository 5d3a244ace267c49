/** A thread that hashes and packs chunks, one after the other. */
import { createHash } from "node:crypto";
import { parentPort } from "node:worker_threads";
import { nativeZstd, wasmZstd, type Zstd } from "./zstd.js";
import { frameContentBytes } from "./zstd-frame.js";

export type ChunkRequest =
  | { readonly kind: "digest"; readonly data: Uint8Array<ArrayBuffer> }
  | { readonly kind: "pack"; readonly data: Uint8Array<ArrayBuffer>; readonly isHashed: boolean }
  | { readonly kind: "unpack"; readonly data: Uint8Array; readonly lengthBytes: number };

export interface ChunkAnswer {
  /** What was sent, back again; or what was in a packed chunk. */
  readonly data?: Uint8Array<ArrayBuffer>;
  /** SHA-256 in hexadecimal; null for a chunk of zeros. */
  readonly hash?: string | null;
  readonly packed?: Uint8Array;
  /** SHA-256 of `packed`, in hexadecimal, where that was asked for. */
  readonly packedHash?: string;
  /** Why a packed chunk cannot be unpacked. */
  readonly fault?: string;
}

function digest(data: Uint8Array): string | null {
  const isZero =
    data[0] === 0 && Buffer.compare(data.subarray(1), data.subarray(0, data.length - 1)) === 0;
  return isZero ? null : createHash("sha256").update(data).digest("hex");
}

function unpack(zstd: Zstd, packed: Uint8Array, lengthBytes: number): ChunkAnswer {
  // The library takes the length that the frame tells for granted.
  if (frameContentBytes(packed) !== lengthBytes) return { fault: "it is no chunk of this length" };
  try {
    const data = zstd.decompress(packed, lengthBytes);
    return data.length === lengthBytes
      ? { data, hash: digest(data) }
      : { fault: "it ends too early" };
  } catch (error) {
    return { fault: (error as Error).message };
  }
}

function answerTo(zstd: Zstd, request: ChunkRequest): ChunkAnswer {
  const { data } = request;
  switch (request.kind) {
    case "digest":
      return { data: request.data, hash: digest(data) };
    case "pack": {
      const packed = zstd.compress(data);
      const packedHash = createHash("sha256");
      return {
        data: request.data,
        packed,
        ...(request.isHashed ? { packedHash: packedHash.update(packed).digest("hex") } : {}),
      };
    }
    case "unpack":
      return unpack(zstd, data, request.lengthBytes);
  }
}

const opened = parentPort === null ? undefined : (nativeZstd() ?? wasmZstd());

parentPort?.on("message", async ({ id, request }: { id: number; request: ChunkRequest }) => {
  const zstd = await opened;
  if (zstd === undefined) return;
  const answer = answerTo(zstd, request);
  const transfer = answer.data === undefined ? [] : [answer.data.buffer];
  parentPort?.postMessage({ id, answer }, transfer);
});
