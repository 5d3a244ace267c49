/**
 * How a front stands below a device-mapper node that is in use: the node leads to the front, the front to a
 * clone of what the node led to before. Its users notice nothing of it.
 */
import { lstatSync } from "node:fs";
import { blockIdentity } from "../stack/probe.js";
import { type MappedNode, mappedNodeOf } from "./mapped-node.js";

/** Of the users' node; it is on record. */
export interface LiveNode {
  /** "major:minor". */
  readonly number: string;
  /** At attach; it may be renamed. */
  readonly name: string;
  /** Empty where it has none. */
  readonly uuid: string;
  /** Number of the clone. */
  readonly clone: string;
  /** See Splice.noteLink(). */
  readonly link?: string;
}

/**
 * - `making`: the node does not lead to the front yet
 * - `on`: it does
 * - `ending`: it is being led back
 * - `lost`: it leads elsewhere, as another program has loaded a table, or the detach did not end; what was
 *   written since is not known
 */
export type SpliceState = "making" | "on" | "ending" | "lost";

export class Splice {
  node: LiveNode;
  state: SpliceState = "making";
  /** "major:minor" of the front; a front that has ended does not know its own. */
  front = "";

  constructor(node: LiveNode) {
    this.node = node;
  }

  static onRecord({ live }: { readonly live?: LiveNode }): Splice | undefined {
    return live === undefined ? undefined : new Splice(live);
  }

  /** For messages, and for users to name it by. */
  get path(): string {
    return `/dev/mapper/${this.present()?.name ?? this.node.name}`;
  }

  /** Of the node: operations queue for it, as they did before the attach. */
  get identity(): string {
    return blockIdentity(this.node.number);
  }

  hasIdentity(identity: string): boolean {
    return identity === this.identity && this.present() !== undefined;
  }

  /** The node as it is now; undefined where it is gone, and another one may have its number. */
  present(sysfs?: string): MappedNode | undefined {
    const { number, name, uuid } = this.node;
    const found = mappedNodeOf(number, sysfs);
    if (found === undefined || found.uuid !== uuid) return undefined;
    return uuid === "" && found.name !== name ? undefined : found;
  }

  /**
   * When a table of the node leads to the front. The kernel makes the link from one to the other then, and removes
   * it with the last such table: so the inode of the link tells a front that was under the node all the time from
   * one that was put back.
   */
  noteLink(front: number, sysfs = "/sys"): void {
    const { link: _, ...node } = this.node;
    const link = linkOf(node.number, front, sysfs);
    this.node = link === undefined ? node : { ...node, link };
  }

  /** Whether the node has led to the front /dev/ublkbN since noteLink(), and to nothing else. */
  leadsTo(front: number, sysfs = "/sys"): boolean {
    const { slaves = [] } = this.present(sysfs) ?? {};
    if (slaves.length !== 1 || slaves[0] !== `ublkb${front}`) return false;
    const { number, link } = this.node;
    return link !== undefined && linkOf(number, front, sysfs) === link;
  }

  /** Answers whether it was lost just now. A loss stays: what was written meanwhile is not known. */
  noteLoss(front: number, sysfs?: string): boolean {
    if (this.state !== "on" || this.leadsTo(front, sysfs)) return false;
    this.state = "lost";
    return true;
  }
}

/** As text: inodes of sysfs have 64 bits. */
function linkOf(number: string, front: number, sysfs: string): string | undefined {
  const path = `${sysfs}/dev/block/${number}/slaves/ublkb${front}`;
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}
