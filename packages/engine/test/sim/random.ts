/** A small repeatable random generator (xorshift128). */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private d: number;

  constructor(seed: number) {
    this.a = (seed ^ 0x9e3779b9) | 0 || 1;
    this.b = Math.imul(seed + 1, 0x85ebca6b) | 0 || 2;
    this.c = Math.imul(seed + 2, 0xc2b2ae35) | 0 || 3;
    this.d = 0x27d4eb2f;
    for (let index = 0; index < 16; index++) this.next();
  }

  /** 32 random bits, unsigned. */
  next(): number {
    let t = this.d;
    const s = this.a;
    this.d = this.c;
    this.c = this.b;
    this.b = s;
    t ^= t << 11;
    t ^= t >>> 8;
    this.a = t ^ s ^ (s >>> 19);
    return this.a >>> 0;
  }

  /** An integer from 0 to below - 1. */
  below(below: number): number {
    return this.next() % below;
  }

  /** An integer from low to high, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True once in `times` on average. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }
}
