/** X.509 certificates for tests of TLS. Made here, so that no tool is needed and each may be wrong in some way. */
import { createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const OID = {
  ecdsaWithSha256: "2a8648ce3d040302",
  commonName: "550403",
  keyUsage: "551d0f",
  subjectAltName: "551d11",
  basicConstraints: "551d13",
} as const;

function tlv(tag: number, ...parts: (Buffer | string)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part as string, "latin1")));
  const { length } = body;
  const head = length < 0x80 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from(head), body]);
}

const sequence = (...parts: Buffer[]): Buffer => tlv(0x30, ...parts);
const oid = (hex: string): Buffer => tlv(0x06, Buffer.from(hex, "hex"));
const algorithm = sequence(oid(OID.ecdsaWithSha256));

function name(common: string): Buffer {
  return sequence(tlv(0x31, sequence(oid(OID.commonName), tlv(0x0c, common))));
}

function time(date: Date): Buffer {
  const digits = date.toISOString().replace(/[-:T]/g, "").slice(2, 14);
  return tlv(0x17, `${digits}Z`);
}

function extension(hex: string, isCritical: boolean, value: Buffer): Buffer {
  const critical = isCritical ? [tlv(0x01, "\xff")] : [];
  return sequence(oid(hex), ...critical, tlv(0x04, value));
}

function pem(label: string, der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** A certificate and its private key, both in PEM. */
export interface Certified {
  readonly name: string;
  readonly certificate: string;
  readonly key: string;
}

const DAY_MS = 86_400_000;
let serial = 0;

/**
 * A certificate for localhost and 127.0.0.1, or of a CA.
 * @param by the CA whose key signs it; undefined: a CA, signed by its own key
 * @param days how long it is valid, from yesterday on; negative: it has expired so many days ago
 */
export function certify(common: string, by?: Certified, days = 2): Certified {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const spki = publicKey.export({ type: "spki", format: "der" });
  const start = Date.now() + Math.min(days, 0) * DAY_MS - DAY_MS;
  const isCa = by === undefined;
  serial++;
  const names = sequence(tlv(0x82, "localhost"), tlv(0x87, Buffer.from([127, 0, 0, 1])));
  const extensions = sequence(
    extension(OID.basicConstraints, true, isCa ? sequence(tlv(0x01, "\xff")) : sequence()),
    // keyCertSign and cRLSign; digitalSignature.
    extension(OID.keyUsage, true, tlv(0x03, isCa ? "\x01\x06" : "\x07\x80")),
    ...(isCa ? [] : [extension(OID.subjectAltName, false, names)]),
  );
  const body = sequence(
    tlv(0xa0, tlv(0x02, "\x02")),
    tlv(0x02, Buffer.from([serial])),
    algorithm,
    name(by?.name ?? common),
    sequence(time(new Date(start)), time(new Date(start + Math.abs(days) * DAY_MS))),
    name(common),
    spki,
    tlv(0xa3, extensions),
  );
  const signer = isCa ? privateKey : createPrivateKey(by.key);
  const signature = sign("sha256", body, signer);
  const der = sequence(body, algorithm, tlv(0x03, "\0", signature));
  const key = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  return { name: common, certificate: pem("CERTIFICATE", der), key };
}

/** Writes a folder in the layout of QEMU, nbdkit and libnbd. @returns its path */
export function certificateFolder(
  folder: string,
  ca: Certified,
  own: { readonly server?: Certified; readonly client?: Certified },
): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "ca-cert.pem"), ca.certificate);
  for (const [role, certified] of Object.entries(own)) {
    writeFileSync(join(folder, `${role}-cert.pem`), certified.certificate);
    writeFileSync(join(folder, `${role}-key.pem`), certified.key);
  }
  return folder;
}
