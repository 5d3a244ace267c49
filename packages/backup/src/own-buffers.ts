/** Memory that threads transfer to each other. */

/** Views that cover their whole buffer: they are transferred without a copy. */
export function ownBuffers(...all: readonly (Uint8Array | undefined)[]): ArrayBuffer[] {
  return all.flatMap((one) => {
    const isOwn = one?.buffer instanceof ArrayBuffer && one.buffer.byteLength === one.byteLength;
    return isOwn ? [one.buffer as ArrayBuffer] : [];
  });
}
