/** The real driver on a simulated machine, life after life. */
import { ReactorServer } from "@blksnap/data-plane";
import { reactorStarter, type SimMachine } from "@blksnap/sim-kernel";
import { Driver, type DriverPorts, type Freeze, machinePorts } from "../../dist/index.js";
import { driverOptions } from "./settings.js";

/** Nobody has a file system on the fronts: users write to the devices themselves. */
class NothingToFreeze implements Freeze {
  readonly report = [];

  async freeze(): Promise<void> {}

  assertHeld(): void {}

  async thaw(): Promise<void> {}
}

export function simulatedPorts(machine: SimMachine): DriverPorts {
  return {
    ...machinePorts(),
    freezing: () => new NothingToFreeze(),
    startReactor: reactorStarter(machine, (setup) => new ReactorServer(setup as never)) as never,
  };
}

/** Starts the driver; what an earlier life has left is gone on with. */
export function startDriver(machine: SimMachine, log: (line: string) => void): Promise<Driver> {
  return machine.start(() => Driver.start(driverOptions(log), simulatedPorts(machine)));
}

export type { Driver };
