import type { DeviceNumber } from "../device-number.js";
import type { ByteRange } from "./probe.js";

/**
 * Which bytes of a device or file belong to the start of a search.
 *
 * - `all`: every one, or it is the start itself
 * - `part`: a contiguous piece, such as a partition; its place is included if known
 * - `slave`: extents of an assembled device, by device-mapper, md, bcache
 * - `file`: what a file system has allocated
 * - `served`: what a process on this host serves from its open file or device
 */
export interface Share {
  readonly kind: "all" | "part" | "slave" | "file" | "served";
  readonly range?: ByteRange | undefined;
  /** The owner of the `part` of which only some bytes belong, by identity. */
  readonly within?: string | undefined;
}

/** A device or file in a stack. */
export interface StackNode {
  /** blockIdentity() or fileIdentity(); "wwid:..." for a disk, whatever path leads to it. */
  readonly identity: string;
  readonly device: DeviceNumber | undefined;
  /** Such as "/dev/sda1". */
  readonly name: string;
  /** The layers from the start to this one, in words. */
  readonly chain: readonly string[];
  /** One entry for each path that leads to it. */
  readonly shares: readonly Share[];
}

/** All that something lies on, by identity; the start of the search is the first. */
export type Stack = ReadonlyMap<string, StackNode>;

/** The place where two stacks share bytes. */
export interface Overlap {
  /** The node as each of them knows it. */
  readonly one: StackNode;
  readonly other: StackNode;
}

/**
 * The first node, from the top of `one`, whose bytes both stacks have. Two partitions of one disk, two volumes of one
 * group, two files of one file system do not count as shared.
 */
export function overlapOf(one: Stack, other: Stack): Overlap | undefined {
  for (const node of one.values()) {
    const there = other.get(node.identity);
    if (there === undefined) continue;
    const meet = node.shares.some((share) => there.shares.some((its) => haveCommon(share, its)));
    if (meet) return { one: node, other: there };
  }
  return undefined;
}

function haveCommon(one: Share, other: Share): boolean {
  if (one.kind === "all" || other.kind === "all") return true;
  // A file system or a volume that fills a disk lies on its partitions, too.
  if (one.kind !== other.kind) return true;
  if (one.kind !== "part" || one.range === undefined || other.range === undefined) return false;
  // Two volumes of one partition: that level shows whether they share bytes.
  if (one.within !== undefined && one.within === other.within) return false;
  return one.range.startBytes < other.range.endBytes && other.range.startBytes < one.range.endBytes;
}

/** The share of a lower node, from that of the upper one, its identity, and its place on the lower one. */
export function shareBelow(upper: Share, identity: string, edge: Share): Share {
  if (upper.kind === "all") return edge;
  if (edge.kind === "all") return upper;
  return edge.kind === "part" ? { ...edge, within: identity } : edge;
}

export function sameShare(one: Share, other: Share): boolean {
  return (
    one.kind === other.kind &&
    one.within === other.within &&
    one.range?.startBytes === other.range?.startBytes &&
    one.range?.endBytes === other.range?.endBytes
  );
}
