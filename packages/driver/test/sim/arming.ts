/** Deaths of the driver: at random moments, and at its fault points. */
import type { FaultPoint, GrowthFaultPoint } from "@blksnap/data-plane";
import { FAULT_POINTS, GROWTH_FAULT_POINTS, stepsOf } from "./load.js";
import type { SimOptions, Simulation } from "./simulation.js";

/** How many steps a death waits for its point. */
const ARMED_STEPS_MAX = 120;
/** One operation in so many has a death at one of its own steps. */
const WITHIN_ONE_IN = 8;
/** The same for operations that end fronts, of which there are few. */
const WITHIN_END_ONE_IN = 3;
/** The same for growths. */
const WITHIN_GROWTH_ONE_IN = 2;
/** With hasFirstWrites: one step of copies, or slots freed, in so many is a death. */
const COPIES_TO_DEATH = 40;
/** How many points a seed tries first. */
const OWN_POINTS = 6;

export type Point = FaultPoint | GrowthFaultPoint;

export class Arming {
  readonly #sim: Simulation;
  readonly #options: SimOptions;
  /** Dies when this point is reached for the n-th time from now. */
  #armed: { point: Point; left: number; atStep: number } | undefined;

  constructor(sim: Simulation, options: SimOptions) {
    this.#sim = sim;
    this.#options = options;
  }

  /** One step in so many arms a death; 0: none. */
  get oneIn(): number {
    return this.#options.deathOneIn ?? 60;
  }

  step(): void {
    const { media, random, steps } = this.#sim;
    if (this.oneIn === 0 || !random.oneIn(this.oneIn)) return;
    if (random.below(12) === 0 && media.mayPowerGo) {
      this.#sim.cutPower();
      return;
    }
    if (random.below(4) === 0) {
      this.#sim.tell("the driver dies now");
      this.#sim.die();
      return;
    }
    if (this.#armed !== undefined && steps - this.#armed.atStep < ARMED_STEPS_MAX) return;
    // Each seed tries some of them first, so that all seeds together reach all points.
    const isOwn = random.below(3) > 0;
    const first = isOwn ? this.#options.seed * OWN_POINTS : 0;
    const at = first + random.below(isOwn ? OWN_POINTS : FAULT_POINTS.length);
    const point = FAULT_POINTS[at % FAULT_POINTS.length] as FaultPoint;
    this.#armed = { point, left: random.below(2), atStep: steps };
  }

  /** Sometimes arms a death at a step of this operation, which may be rare. */
  within(operation: string): void {
    const { random, steps } = this.#sim;
    const points = FAULT_POINTS.filter((point) => stepsOf(operation).includes(point.split(".")[0]));
    const isEnd = operation === "detach" || operation === "stop";
    const oneIn = isEnd ? WITHIN_END_ONE_IN : WITHIN_ONE_IN;
    if (this.oneIn === 0 || points.length === 0 || !random.oneIn(oneIn)) return;
    const point = points[random.below(points.length)] as FaultPoint;
    this.#armed = { point, left: random.below(2), atStep: steps };
  }

  /** The same for the growth of a front that is about to come. */
  withinGrowth(): void {
    const { growths, steps } = this.#sim;
    const { random } = growths;
    if (this.oneIn === 0 || !random.oneIn(WITHIN_GROWTH_ONE_IN)) return;
    const point = GROWTH_FAULT_POINTS[random.below(GROWTH_FAULT_POINTS.length)] as Point;
    this.#armed = { point, left: 0, atStep: steps };
  }

  /** @returns whether the driver dies at this point, now */
  meets(point: Point): boolean {
    const armed = this.#armed;
    const isMet = armed?.point === point && armed.left-- <= 0;
    // Those that no operation of the API leads to.
    const isOfRequests = point.startsWith("copy.") || point === "slots.freed";
    const isFrequent = this.#sim.hasFirstWrites && isOfRequests;
    if (!isMet && !(isFrequent && this.#sim.random.oneIn(COPIES_TO_DEATH))) return false;
    this.#armed = undefined;
    return true;
  }

  disarm(): void {
    this.#armed = undefined;
  }
}
