/** Parses TCP addresses. */
import { isIP, SocketAddress } from "node:net";

/** NBD's port at IANA. */
const NBD_PORT = 10_809;
const PORT_MAX = 65_535;
const WRITTEN = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?$/;

export interface TcpAddress {
  readonly address: string;
  readonly port: number;
}

/**
 * Reads 192.0.2.1:10809 or [2001:db8::1]:10809; without a port it is that of NBD, 10809.
 * @returns undefined for anything else
 */
export function parseTcpAddress(text: string): TcpAddress | undefined {
  const [, six, four, digits] = WRITTEN.exec(text) ?? [];
  const address = six ?? four ?? "";
  const port = digits === undefined ? NBD_PORT : Number(digits);
  const isRight = isIP(address) === (six === undefined ? 4 : 6) && port >= 1 && port <= PORT_MAX;
  return isRight ? { address, port } : undefined;
}

/** The canonical text of an address, which parseTcpAddress() reads. */
export function tcpAddressText({ address, port }: TcpAddress): string {
  if (isIP(address) !== 6) return `${address}:${port}`;
  return `[${new SocketAddress({ address, family: "ipv6" }).address}]:${port}`;
}
