/**
 * Certificates in a folder, under the names of QEMU, nbdkit and libnbd:
 *
 * ```
 *   ca-cert.pem                         of the CA that is trusted
 *   ca-crl.pem                          what that has revoked; may be absent
 *   server-cert.pem  server-key.pem     of a server
 *   client-cert.pem  client-key.pem     of a client
 * ```
 */
import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { NbdError } from "./errors.js";

const ENOENT = "ENOENT";
const MIN_VERSION = "TLSv1.2";

function failed(path: string, why: string, cause?: unknown): NbdError {
  return new NbdError("CERTIFICATES_UNUSABLE", `${path}: ${why}`, 0, cause);
}

/** @returns undefined if it is optional and absent */
function readPem(folder: string, name: string, isOptional = false): Buffer | undefined {
  const path = join(folder, name);
  try {
    return readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (isOptional && code === ENOENT) return undefined;
    throw failed(path, message, error);
  }
}

/** Peers would refuse it, with a worse message. */
function assertInForce(folder: string, name: string, pem: Buffer | undefined): void {
  if (pem === undefined) return;
  const path = join(folder, name);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (error) {
    throw failed(path, "it is not a certificate in PEM", error);
  }
  const now = Date.now();
  const { validFrom, validTo } = certificate;
  if (now > Date.parse(validTo)) throw failed(path, `it has expired, on ${validTo}`);
  if (now < Date.parse(validFrom)) throw failed(path, `it is valid from ${validFrom} on`);
}

function asContext(folder: string, options: SecureContextOptions): SecureContextOptions {
  try {
    createSecureContext(options);
  } catch (error) {
    throw failed(folder, `these certificates do not go together: ${(error as Error).message}`);
  }
  return options;
}

/**
 * Files of a server.
 * @param isCaNeeded the CA verifies clients
 * @throws NbdError CERTIFICATES_UNUSABLE
 */
export function serverCertificates(folder: string, isCaNeeded: boolean): SecureContextOptions {
  const cert = readPem(folder, "server-cert.pem");
  const key = readPem(folder, "server-key.pem");
  assertInForce(folder, "server-cert.pem", cert);
  const ca = readPem(folder, "ca-cert.pem", !isCaNeeded);
  assertInForce(folder, "ca-cert.pem", ca);
  const crl = readPem(folder, "ca-crl.pem", true);
  return asContext(folder, { cert, key, ca, crl, minVersion: MIN_VERSION });
}

/**
 * Files of a client: without a certificate it can use servers that require none.
 * @throws NbdError CERTIFICATES_UNUSABLE
 */
export function clientCertificates(folder: string): SecureContextOptions {
  const ca = readPem(folder, "ca-cert.pem");
  const cert = readPem(folder, "client-cert.pem", true);
  const key = cert === undefined ? undefined : readPem(folder, "client-key.pem");
  assertInForce(folder, "client-cert.pem", cert);
  const crl = readPem(folder, "ca-crl.pem", true);
  return asContext(folder, { ca, cert, key, crl, minVersion: MIN_VERSION });
}

/** OpenSSL's message, without its source location. */
export function tlsReason(error: Error): string {
  const { reason } = error as { reason?: unknown };
  return typeof reason === "string" ? reason : error.message;
}
