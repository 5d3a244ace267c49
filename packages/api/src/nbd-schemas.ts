/** Schemas of the TCP addresses that accept NBD clients. */
import { list, record, recordWithOptional } from "./build.js";
import * as is from "./scalars.js";

const address = {
  type: "string",
  minLength: 2,
  maxLength: 64,
  pattern: "^[0-9A-Fa-f:.]+$",
  description: "an IPv4 or IPv6 address",
} as const;
const port = { type: "integer", minimum: 1, maximum: 65_535 } as const;

export const nbdListener = record({
  address,
  port,
  tls: is.flag,
  verifies_clients: {
    ...is.flag,
    description: "clients without a certificate that ca-cert.pem has signed are refused",
  },
  writable: {
    ...is.flag,
    description: "clients may write to exports that are writable at nbd.sock",
  },
  configured: { ...is.flag, description: "by blksnap.toml: each daemon opens it when it starts" },
  open: is.flag,
  why: { ...is.textOrNull, description: "why it is not open yet; opening is retried" },
  connections: is.count,
  refused: {
    ...is.count,
    description: "clients refused so far: no TLS, no certificate, too slow, too many",
  },
});

export const nbdListenerOpenRequest = recordWithOptional(
  { address, port },
  {
    certificates: {
      ...is.path,
      description: "folder with ca-cert.pem, server-cert.pem and server-key.pem; for TLS",
    },
    any_client: { ...is.flag, description: "ask clients for no certificate" },
    writable: { ...is.flag, description: "clients may write where they could at nbd.sock" },
    insecure: { ...is.flag, description: "without TLS; only at an address of loopback" },
  },
);
export const nbdListenerQuery = record({ address, port });
export const nbdListenerList = record({ listeners: list(nbdListener) });
