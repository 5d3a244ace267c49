/**
 * State of a front below a device-mapper node in use: the node leads to the front, the front to a clone of the node's
 * former table. The node's users notice nothing.
 */
import { lstatSync } from "node:fs";
import { blockIdentity } from "../stack/probe.js";
import { type MappedNode, mappedNodeOf } from "./mapped-node.js";

/** Uuid of the users' node, recorded. */
export interface LiveNode {
  /** "major:minor". */
  readonly number: string;
  /** See Splice.noteName(). */
  readonly name: string;
  /** Empty if it has none. */
  readonly uuid: string;
  /** Number of the clone. */
  readonly clone: string;
  /** See Splice.noteLink(). */
  readonly link?: string;
  /** See Splice.noteMade(); absent if its attach did not get there yet. */
  readonly isMade?: boolean;
}

/**
 * - `making`: the node does not lead to the front yet
 * - `on`: it does
 * - `ending`: its former table is being restored
 * - `lost`: it leads elsewhere, because another program has loaded a table or the detach did not end; writes since
 *   then are unknown
 */
export type SpliceState = "making" | "on" | "ending" | "lost";

export class Splice {
  node: LiveNode;
  state: SpliceState = "making";
  /** Another program made it lead elsewhere. */
  isTaken = false;
  #why: string | undefined;
  /** "major:minor" of the front; a front that has ended does not know its own. */
  front = "";

  constructor(node: LiveNode) {
    this.node = node;
  }

  static onRecord({ live }: { readonly live?: LiveNode }): Splice | undefined {
    return live === undefined ? undefined : new Splice(live);
  }

  /** In words, why it is lost. */
  get why(): string | undefined {
    return this.state === "lost" ? this.#why : undefined;
  }

  /** For messages, and for users to name it. */
  get path(): string {
    return `/dev/mapper/${this.present()?.name ?? this.node.name}`;
  }

  /** The node's name at attach: operations queue under it as before the attach. */
  get identity(): string {
    return blockIdentity(this.node.number);
  }

  hasIdentity(identity: string): boolean {
    return identity === this.identity && this.present() !== undefined;
  }

  /** The node as it is now; undefined if it is gone, though another one may have its number. */
  present(sysfs = "/sys"): MappedNode | undefined {
    const found = mappedNodeOf(this.node.number, sysfs);
    return found !== undefined && this.#isIt(found, sysfs) ? found : undefined;
  }

  /** A node with the same link to the front is the same node, whatever its name. */
  #isIt({ number, name, uuid, slaves }: MappedNode, sysfs: string): boolean {
    const { node } = this;
    if (uuid === node.uuid && (uuid !== "" || name === node.name)) return true;
    // An inactive table has links beside it.
    const hasLink = (slave: string) => linkOf(number, slave, sysfs) === node.link;
    return node.link !== undefined && slaves.some(hasLink);
  }

  /**
   * Follows a node that was renamed, even if it leads elsewhere by then: LVM loads a table when it renames a volume,
   * and exchanges it afterwards. Returns whether it was renamed.
   */
  noteName(sysfs?: string): boolean {
    const isMade = this.state === "on" || this.state === "lost";
    const found = isMade ? this.present(sysfs) : undefined;
    if (found === undefined) return false;
    const { name, uuid } = found;
    if (name === this.node.name && uuid === this.node.uuid) return false;
    this.node = { ...this.node, name, uuid };
    return true;
  }

  /**
   * Call it when a table of the node leads to the front: records the link that the kernel makes from one to the other.
   * The kernel removes it with the last such table: so the link's inode distinguishes a front that was under the node
   * all the time from one that was put back.
   */
  noteLink(front: number, sysfs = "/sys"): void {
    const { link: _, ...node } = this.node;
    const link = linkOf(node.number, `ublkb${front}`, sysfs);
    this.node = link === undefined ? node : { ...node, link };
  }

  /**
   * Whether the node should lead to the front: its attach got there, and no detach has begun. If it leads elsewhere,
   * another program has changed it, perhaps while no daemon watched. Returns whether that is new.
   */
  noteMade(isMade: boolean): boolean {
    const { isMade: before } = this.node;
    this.node = { ...this.node, isMade };
    return isMade !== before;
  }

  /** Whether the node has led only to the front /dev/ublkbN since noteLink(). */
  leadsTo(front: number, sysfs?: string): boolean {
    return this.#whyNot(front, sysfs) === undefined;
  }

  #whyNot(front: number, sysfs = "/sys"): string | undefined {
    const { slaves } = this.present(sysfs) ?? {};
    if (slaves === undefined) return "it was removed";
    const name = `ublkb${front}`;
    if (slaves.length !== 1 || slaves[0] !== name) return "another program gave it another table";
    const { number, link } = this.node;
    const isSame = link !== undefined && linkOf(number, name, sysfs) === link;
    return isSame ? undefined : "another program gave it another table for some time";
  }

  /** Returns whether it was lost just now. A loss is final: writes meanwhile are unknown. */
  noteLoss(front: number, sysfs?: string): boolean {
    if (this.state !== "on" || this.leadsTo(front, sysfs)) return false;
    this.lose(this.#whyNot(front, sysfs) ?? "it led elsewhere for a moment");
    this.isTaken = true;
    return true;
  }

  lose(why: string): void {
    this.state = "lost";
    this.#why = why;
  }
}

/** As text: inodes of sysfs have 64 bits. */
function linkOf(number: string, slave: string, sysfs: string): string | undefined {
  const path = `${sysfs}/dev/block/${number}/slaves/${slave}`;
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}
