/** What the kernel's ublk supports, and what it does only sometimes. */
import { Random } from "./random.js";

/** Bits up to those of Linux 6.12. */
const FEATURES = 0x3ff;

export interface UblkKernelOptions {
  readonly seed: number;
  /** The result of GET_FEATURES; default: that of Linux 6.12. */
  readonly ublkFeatures?: number;
  /** One request in so many has pages that cannot be registered, or are refused by the target; 0: none. */
  readonly pagesRefusedOneIn?: number;
}

export class UblkKernel {
  readonly features: number;
  readonly #pagesRefusedOneIn: number;
  readonly #random: Random;

  constructor({ seed, ublkFeatures = FEATURES, pagesRefusedOneIn = 0 }: UblkKernelOptions) {
    this.features = ublkFeatures;
    this.#pagesRefusedOneIn = pagesRefusedOneIn;
    this.#random = new Random(seed ^ 0x2545f491);
  }

  refusesPages(): boolean {
    return this.#pagesRefusedOneIn > 0 && this.#random.oneIn(this.#pagesRefusedOneIn);
  }
}
