/** zstd: Node's own if it has it (22.15 and later), else WebAssembly. The frames are interchangeable. */
import * as zlib from "node:zlib";

/** The fastest level: backups should be as fast as the slower device. */
const LEVEL = 1;
const OUTPUT_CHUNK_BYTES = 2 ** 20;

export interface Zstd {
  /** Compresses into a frame that states its length. Undefined: hardly compressible, see storedPieces(). */
  compress(data: Uint8Array): Uint8Array | undefined;
  /** Decompresses into a buffer of its own. @throws if it is damaged, or longer than that */
  decompress(frame: Uint8Array, lengthBytes: number): Uint8Array<ArrayBuffer>;
}

interface NativeOptions {
  readonly chunkSize: number;
  readonly maxOutputLength?: number;
  readonly pledgedSrcSize?: number;
  readonly params?: Record<number, number>;
}

/** What later versions of Node have. */
interface NativeZstd {
  readonly zstdCompressSync?: (data: Uint8Array, options: NativeOptions) => Uint8Array;
  readonly zstdDecompressSync?: (data: Uint8Array, options: NativeOptions) => Uint8Array;
  readonly constants: { readonly ZSTD_c_compressionLevel?: number };
}

function ownBuffer(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const isOwn = bytes.buffer instanceof ArrayBuffer && bytes.byteLength === bytes.buffer.byteLength;
  return isOwn ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes);
}

/** Undefined if this Node has none. */
export function nativeZstd(of: NativeZstd = zlib as NativeZstd): Zstd | undefined {
  const { zstdCompressSync, zstdDecompressSync } = of;
  const level = of.constants.ZSTD_c_compressionLevel;
  if (zstdCompressSync === undefined || zstdDecompressSync === undefined || level === undefined) {
    return undefined;
  }
  const params = { [level]: LEVEL };
  return {
    compress(data) {
      const options = { chunkSize: OUTPUT_CHUNK_BYTES, pledgedSrcSize: data.length, params };
      return zstdCompressSync(data, options);
    },
    decompress(frame, lengthBytes) {
      const options = { chunkSize: OUTPUT_CHUNK_BYTES, maxOutputLength: lengthBytes };
      return ownBuffer(zstdDecompressSync(frame, options));
    },
  };
}

/** Samples: so many offsets of a chunk, so many bytes each. */
const SAMPLES = 16;
const SAMPLE_BYTES = 4096;
/** Compression to more than this fraction of the length is not worth the time. */
const PACKED_MAX = 0.97;

/** Detects incompressible content by samples: WebAssembly takes five times as long for it as all other work. */
function isDense(data: Uint8Array, compress: (data: Uint8Array) => Uint8Array): boolean {
  if (data.length < SAMPLES * SAMPLE_BYTES) return false;
  const samples = new Uint8Array(SAMPLES * SAMPLE_BYTES);
  const stepBytes = Math.floor(data.length / SAMPLES);
  for (let index = 0; index < SAMPLES; index++) {
    const from = index * stepBytes;
    samples.set(data.subarray(from, from + SAMPLE_BYTES), index * SAMPLE_BYTES);
  }
  return compress(samples).length > samples.length * PACKED_MAX;
}

export async function wasmZstd(): Promise<Zstd> {
  const { compress, decompress, init } = await import("@bokuweb/zstd-wasm");
  await init();
  const packed = (data: Uint8Array): Uint8Array => compress(data, LEVEL);
  return {
    compress: (data) => (isDense(data, packed) ? undefined : packed(data)),
    decompress: (frame) => ownBuffer(decompress(frame)),
  };
}
