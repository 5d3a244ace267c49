/**
 * Where the files of a mount without a device of its own are: in memory, on another host, or in a directory of this
 * host that a server or another file system shows.
 */
import { readlink } from "node:fs/promises";
import { isIPv6 } from "node:net";
import { hostname } from "node:os";
import { posix } from "node:path";
import { fieldBytes, type Mount, superOption } from "./mountinfo.js";
import { namesIn, readText } from "./probe.js";

export type FilesLocation =
  /** On no device of this host. */
  | { readonly kind: "elsewhere" }
  /** In a directory of this host; `below` is the path in it, if names are the same there. */
  | { readonly kind: "directory"; readonly path: string; readonly below: string }
  | { readonly kind: "unknown"; readonly why: string };

export interface FilesView {
  readonly procRoot: string;
  /** Tables of what this host exports by NFS. */
  readonly exportTables: readonly string[];
}

/** The kernel's current exports, those that exportfs(8) has set, and those that it will set. */
export const EXPORT_TABLES: readonly string[] = [
  "/proc/fs/nfsd/exports",
  "/var/lib/nfs/etab",
  "/etc/exports",
];

const ELSEWHERE: FilesLocation = { kind: "elsewhere" };
/** In memory, or on the host of this virtual machine. */
const NO_DISK = /^(tmpfs|ramfs|devtmpfs|hugetlbfs|proc|sysfs|virtiofs|ceph|afs)$/;
const SMB = /^(cifs|smb3)$/;
const NFS = /^nfs4?$/;
/** Clients of services on the network, and of a virtual machine's host. */
const REMOTE_FUSE =
  /^fuse\.(sshfs|glusterfs|ceph-fuse|s3fs|gcsfuse|goofys|rclone|juicefs|mfs|moosefs|vmhgfs-fuse|prl_fsd)$/;
/** Show a directory under another path. */
const STACKED = /^(ecryptfs|fuse(\..+)?)$/;
const FUSE_NODE = "/dev/fuse";
/** An own address in fib_trie, which is one with the type LOCAL. */
const LOCAL_LEAF = /\|-- ([\d.]+)\n(?:\s+\/\d+ .*\n)*?\s+\/32 host LOCAL/g;
/** Network namespaces that are looked into for addresses. */
const NAMESPACES_MAX = 1024;

/** @param path on the mount @returns undefined for a file system on devices */
export async function locateFiles(
  mount: Mount,
  path: string,
  view: FilesView,
): Promise<FilesLocation | undefined> {
  const { fsType, source } = mount;
  if (NO_DISK.test(fsType)) return ELSEWHERE;
  if (NFS.test(fsType)) return nfsLocation(mount, path, view);
  if (SMB.test(fsType)) return shareOrElsewhere(mount, hostOfShare(source), view);
  if (fsType === "9p") {
    const isNetwork = superOption(mount, "trans") === "tcp";
    return isNetwork ? shareOrElsewhere(mount, source, view) : ELSEWHERE;
  }
  if (REMOTE_FUSE.test(fsType)) return shareOrElsewhere(mount, hostOf(source), view);
  if (!STACKED.test(fsType)) return undefined;
  if (source.startsWith("/") && source !== FUSE_NODE) {
    return { kind: "directory", path: source, below: pathBelow(path, mount) };
  }
  return { kind: "unknown", why: `it is unknown where ${fsType} keeps its files (${source})` };
}

/** Of "host:/path", "user@host:path", "[::1]:/path". */
function hostOf(source: string): string {
  const match = /^(?:[^@/]*@)?(?:\[([^\]]*)\]|([^:/]*)):/.exec(source);
  return match?.[1] ?? match?.[2] ?? "";
}

/** Of "//host/share". */
function hostOfShare(source: string): string {
  return source.replaceAll("\\", "/").split("/")[2] ?? "";
}

async function shareOrElsewhere(
  mount: Mount,
  host: string,
  view: FilesView,
): Promise<FilesLocation> {
  if ((await hostKind(mount, host, view)) === "other") return ELSEWHERE;
  const why = `${mount.source} is a server on this host, and it is unknown where it keeps its files`;
  return { kind: "unknown", why };
}

async function nfsLocation(mount: Mount, path: string, view: FilesView): Promise<FilesLocation> {
  const { source } = mount;
  const kind = await hostKind(mount, hostOf(source), view);
  if (kind === "other") return ELSEWHERE;
  const server = `${source} is exported by this host`;
  if (kind === "container") return { kind: "unknown", why: `${server}, in another namespace` };
  const exported = await readExports(view.exportTables);
  const remote = source.slice(source.indexOf(":/") + 1);
  // With NFS 4, all paths begin at the root export.
  const root = isVersion4(mount) ? exported.find(({ isRoot }) => isRoot)?.path : undefined;
  const base = posix.join(root ?? "/", remote);
  if (!exported.some((one) => lies(base, one.path))) {
    return { kind: "unknown", why: `${server}, and not in its tables of exports` };
  }
  return { kind: "directory", path: posix.join(base, pathBelow(path, mount)), below: "" };
}

/** From the file system's root. */
function pathBelow(path: string, { mountPoint, root }: Mount): string {
  return posix.join(root, lies(path, mountPoint) ? posix.relative(mountPoint, path) : "");
}

function isVersion4({ fsType, superOptions }: Mount): boolean {
  return fsType === "nfs4" || superOptions.some((option) => option.startsWith("vers=4"));
}

function lies(path: string, folder: string): boolean {
  return folder === "/" || path === folder || path.startsWith(`${folder}/`);
}

interface Export {
  readonly path: string;
  /** The root of all paths of NFS 4. */
  readonly isRoot: boolean;
}

async function readExports(tables: readonly string[]): Promise<Export[]> {
  const texts = await Promise.all(tables.map(readText));
  return texts.flatMap((text = "") =>
    text.split("\n").flatMap((line): Export[] => {
      const match = /^\s*(?:"([^"]+)"|(\/\S*))(.*)$/.exec(line);
      const name = match?.[1] ?? match?.[2];
      if (name === undefined) return [];
      const isRoot = /[(,-]fsid=(0|root)[,)\s]/.test(`${match?.[3]} `);
      return [{ path: posix.join(fieldBytes(name).toString(), "."), isRoot }];
    }),
  );
}

/** Whether a mount's server is this host, another one, or this host in another network namespace. */
async function hostKind(
  mount: Mount,
  host: string,
  { procRoot }: FilesView,
): Promise<"own" | "container" | "other"> {
  // The kernel reports the address that it talks to, whatever name was used.
  const address = plainAddress(superOption(mount, "addr") ?? host);
  if (/^127\.|^::1$/.test(address)) return "own";
  if (!/^[\d.]+$/.test(address) && !isIPv6(address)) return isOwnName(address, procRoot);
  const namespaces = await addressesByNamespace(procRoot);
  const [own, ...others] = namespaces;
  if (own?.has(address)) return "own";
  return others.some((addresses) => addresses.has(address)) ? "container" : "other";
}

async function isOwnName(name: string, procRoot: string): Promise<"own" | "other"> {
  const [host, ...domain] = ((await readText(`${procRoot}/sys/kernel/hostname`)) ?? hostname())
    .toLowerCase()
    .split(".");
  const [wanted, ...itsDomain] = name.toLowerCase().split(".");
  // One of the two may be the short name of the other.
  const isSame =
    domain.length === 0 || itsDomain.length === 0 || domain.join() === itsDomain.join();
  return wanted === "localhost" || (wanted === host && isSame) ? "own" : "other";
}

/** One form per address, without a zone. */
function plainAddress(text: string): string {
  const address = text
    .replace(/^\[|\]$/g, "")
    .replace(/%.*$/, "")
    .toLowerCase();
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  if (mapped !== null) return mapped[1] as string;
  return isIPv6(address) ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address;
}

/** The own addresses of each network namespace on this host, this process's first. */
async function addressesByNamespace(procRoot: string): Promise<Set<string>[]> {
  const processes = (await namesIn(procRoot)).filter((name) => /^\d+$/.test(name));
  const seen = new Map<string, string>();
  for (const name of ["self", ...processes]) {
    const link = await readlink(`${procRoot}/${name}/ns/net`).catch(() => undefined);
    if (link !== undefined && !seen.has(link) && seen.size < NAMESPACES_MAX) seen.set(link, name);
  }
  return Promise.all([...seen.values()].map((name) => addressesIn(`${procRoot}/${name}/net`)));
}

async function addressesIn(folder: string): Promise<Set<string>> {
  const addresses = new Set<string>();
  const trie = (await readText(`${folder}/fib_trie`)) ?? "";
  for (const [, address] of trie.matchAll(LOCAL_LEAF)) {
    addresses.add(address as string);
  }
  const inet6 = (await readText(`${folder}/if_inet6`)) ?? "";
  for (const [digits] of inet6.matchAll(/^[0-9a-f]{32}/gm)) {
    addresses.add(plainAddress(digits.replace(/(.{4})(?=.)/g, "$1:")));
  }
  return addresses;
}
