import type { DriverControl } from "@blksnap/api";

/** A driver some of whose operations are replaced. */
export function overlay(driver: DriverControl, own: Partial<DriverControl>): DriverControl {
  return new Proxy(driver, {
    get(target, name) {
      const replaced: unknown = Reflect.get(own, name);
      if (replaced !== undefined) return replaced;
      const value: unknown = Reflect.get(target, name);
      // Private members need the original as receiver, not this proxy.
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
