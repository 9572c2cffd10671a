/** The checksum of stored records: finds what a disk or a half-broken database did to them. */

/** The reversed polynomial of IEEE 802.3. */
const POLYNOMIAL = 0xedb88320;

let table: Uint32Array | undefined;

function makeTable(): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let rest = byte;
    for (let bit = 0; bit < 8; bit++) rest = rest & 1 ? (rest >>> 1) ^ POLYNOMIAL : rest >>> 1;
    return rest;
  });
}

/**
 * CRC-32 as in zip and PNG, an unsigned 32-bit number. With `before`, the checksum of some bytes, that of
 * those bytes followed by these.
 */
export function crc32(bytes: Uint8Array, before = 0): number {
  table ??= makeTable();
  let rest = ~before;
  for (const byte of bytes) rest = (rest >>> 8) ^ (table[(rest ^ byte) & 0xff] ?? 0);
  return ~rest >>> 0;
}
