/** What the kernel's ublk can, and what it does only sometimes. */
import { Random } from "./random.js";

/** Bits up to those of Linux 6.12. */
const FEATURES = 0x3ff;

export interface UblkKernelOptions {
  readonly seed: number;
  /** What GET_FEATURES tells; by default what Linux 6.12 does. */
  readonly ublkFeatures?: number;
  /** One in so many requests has pages that cannot be registered, or are not taken below; 0: none. */
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
