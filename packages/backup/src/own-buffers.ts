/** Memory that threads hand to each other. */

/** Those that have nothing but this: they go to another thread without being copied. */
export function ownBuffers(...all: readonly (Uint8Array | undefined)[]): ArrayBuffer[] {
  return all.flatMap((one) => {
    const isOwn = one?.buffer instanceof ArrayBuffer && one.buffer.byteLength === one.byteLength;
    return isOwn ? [one.buffer as ArrayBuffer] : [];
  });
}
