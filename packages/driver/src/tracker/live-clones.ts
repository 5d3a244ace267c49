/**
 * Clones: our nodes that lead to the former target of the users' node. The UUID of each says which daemon and
 * which node it belongs to.
 */
import { ControlError } from "@blksnap/api";
import { faultPoint } from "@blksnap/data-plane";
import { messageOf } from "@blksnap/errors";
import {
  type DeviceMapper,
  LinuxBlockError,
  type LiveNode,
  type MappedNode,
  Splice,
} from "@blksnap/linux-block";
import { Serial } from "@blksnap/uring";
import type { DriverContext } from "../context.js";
import { splicingFailed, unsupported } from "./live-errors.js";

type Context = Pick<DriverContext, "state" | "logger">;

const UUID_PREFIX = "blksnap-";
const NAME_SUFFIX = "-blksnap";

export class LiveClones {
  readonly #context: Context;
  readonly #dm: DeviceMapper;
  /** Serialises renames: two for one clone start from the name that it has then. */
  readonly #renames = new Serial();

  constructor(context: Context, dm: DeviceMapper) {
    this.#context = context;
    this.#dm = dm;
  }

  /** True for clones of any daemon. */
  static isOne({ uuid }: MappedNode): boolean {
    return uuid.startsWith(UUID_PREFIX);
  }

  /** The path at which the front's original is opened. */
  static path({ node }: Splice): string {
    return `/dev/dm-${node.clone.split(":")[1]}`;
  }

  /**
   * Makes the clone of a node.
   * @param known nodes of all trackers, whether served or not
   * @throws ControlError LIVE_UNSUPPORTED, SPLICE_FAILED: nothing is left behind
   */
  async make(node: MappedNode, known: readonly LiveNode[]): Promise<Splice> {
    const { number, name, uuid } = node;
    const names = { name: `${name}${NAME_SUFFIX}`, uuid: `${this.#uuidPrefix}${number}` };
    try {
      // The clone of a node that had this name before may still be called by it.
      await this.#renames.run(async () => undefined);
      await this.#makeRoom(names, known);
      const { number: clone } = await this.#dm.clone(node, names);
      faultPoint("live.cloned");
      return new Splice({ number, name, uuid, clone });
    } catch (error) {
      if (error instanceof ControlError) throw error;
      if (codeOf(error) === "NODE_NOT_CLONABLE") throw unsupported(messageOf(error), error);
      throw splicingFailed(`cannot clone ${name}: ${messageOf(error)}`, error);
    }
  }

  /** An earlier detach may have left a clone in its place. @throws ControlError SPLICE_FAILED */
  async #makeRoom(
    names: { readonly name: string; readonly uuid: string },
    known: readonly LiveNode[],
  ): Promise<void> {
    for (const orphan of this.#orphans(known)) {
      if (orphan.uuid !== names.uuid && orphan.name !== names.name) continue;
      await this.#removeOrphan(orphan).catch((error: unknown) => {
        const what = `${orphan.name}, left by an earlier detach, cannot be removed`;
        throw splicingFailed(`${what}: ${messageOf(error)}`, error);
      });
    }
  }

  /** If the clone cannot be removed, that is logged. */
  async remove({ node }: Splice): Promise<void> {
    await this.#dm.remove(node.clone).catch((error: unknown) => {
      this.#context.logger.error({ node: node.clone, err: error }, "a clone is not removed");
    });
    faultPoint("live.clone-removed");
  }

  /** Follows a rename of the node: another node that gets the old name can then be attached, too. */
  follow(splice: Splice): Promise<void> {
    return this.#renames.run(async () => {
      const { clone, name } = splice.node;
      await this.#dm.rename(clone, `${name}${NAME_SUFFIX}`).catch((error: unknown) => {
        this.#context.logger.warn({ node: clone, err: error }, "a clone keeps its old name");
      });
    });
  }

  /** Removes clones without a tracker. Failures are logged. @param known see make() */
  async removeOrphans(known: readonly LiveNode[]): Promise<void> {
    for (const orphan of this.#orphans(known)) {
      await this.#removeOrphan(orphan).catch((error: unknown) => {
        this.#context.logger.error({ node: orphan.name, err: error }, "a clone is not removed");
      });
    }
  }

  /** Distinguishes clones of daemons with other state directories. */
  get #uuidPrefix(): string {
    return `${UUID_PREFIX}${this.#context.state.owner.toString(16).padStart(8, "0")}-`;
  }

  #orphans(known: readonly LiveNode[]): MappedNode[] {
    const clones = new Set(known.map(({ clone }) => clone));
    const isOurs = ({ uuid }: MappedNode) => uuid.startsWith(this.#uuidPrefix);
    return this.#dm.nodes().filter((node) => isOurs(node) && !clones.has(node.number));
  }

  /**
   * Removes it, unless its node leads elsewhere now: then the clone is the only way to its data. The kernel removes no
   * node that is open.
   */
  async #removeOrphan({ number, name, uuid }: MappedNode): Promise<void> {
    const of = uuid.slice(this.#uuidPrefix.length);
    const isGone = this.#dm.node(of) === undefined;
    // If the node has grown, the clone still leads to nothing that the node does not lead to.
    const hasAll = !isGone && (await this.#dm.growthOf(of, number)) !== undefined;
    if (!isGone && !hasAll) throw new Error(`the node ${of} leads elsewhere`);
    await this.#dm.remove(number);
    this.#context.logger.warn({ node: name }, "a clone without a tracker was removed");
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof LinuxBlockError ? error.code : undefined;
}
