/** Fronts and images of a daemon without ublk are NBD exports: addresses instead of block devices. */
export function isNbdAddress(path: string): boolean {
  return path.startsWith("nbd+unix:");
}
