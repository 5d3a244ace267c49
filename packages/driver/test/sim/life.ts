/** The real driver on a simulated machine, life after life. */
import { ReactorServer } from "@blksnap/data-plane";
import { reactorStarter, type SimMachine } from "@blksnap/sim-kernel";
import {
  Driver,
  type DriverOptions,
  type DriverPorts,
  type Freezing,
  machinePorts,
} from "../../dist/index.js";
import { driverOptions, linkStore } from "./settings.js";

/** No file system is on the fronts: users write to the devices directly. */
const nothingToFreeze: Freezing = () => ({
  report: [],
  freeze: async () => undefined,
  assertHeld: () => undefined,
  thaw: async () => undefined,
});

function simulatedPorts(machine: SimMachine, freezing: Freezing): DriverPorts {
  return {
    ...machinePorts(),
    freezing,
    startReactor: reactorStarter(machine, (setup) => new ReactorServer(setup as never)) as never,
  };
}

/** Starts the driver; it resumes what an earlier life has left. */
export function startDriver(
  machine: SimMachine,
  log: (line: string) => void,
  freezing: Freezing = nothingToFreeze,
  more: Partial<DriverOptions> = {},
): Promise<Driver> {
  const options = { ...driverOptions(log), ...more };
  linkStore(machine);
  return machine.start(() => Driver.start(options, simulatedPorts(machine, freezing)));
}

export type { Driver };
