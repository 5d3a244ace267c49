/** What an NBD client says in the handshake. */

export function u32(...words: readonly number[]): Buffer {
  const bytes = Buffer.alloc(words.length * 4);
  for (const [index, word] of words.entries()) bytes.writeUInt32BE(word, index * 4);
  return bytes;
}

/** "IHAVEOPT", an option, and its data. @param lengthBytes the length that it claims */
export function nbdOption(
  number: number,
  data: Uint8Array = new Uint8Array(0),
  lengthBytes: number = data.length,
): Buffer {
  return Buffer.concat([Buffer.from("IHAVEOPT"), u32(number, lengthBytes), data]);
}
