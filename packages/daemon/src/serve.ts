/** A daemon from its start to its end: the driver, its control API, and its ending. */
import { join } from "node:path";
import { ControlError, ERRORS } from "@blksnap/api";
import type { ControlServer, ControlServerOptions } from "@blksnap/api-server";
import {
  DAEMON_VERSION,
  Driver,
  type DriverOptions,
  presentStateDirectory,
  StateFile,
} from "@blksnap/driver";
import { isEndOfBoot, isGoingDown } from "@blksnap/linux-block";
import type { Logger } from "pino";
import { Configured } from "./config/configured.js";
import type { InForce } from "./config/in-force.js";
import { DaemonOperations, type Ending } from "./daemon-operations.js";
import { EndSignals } from "./end-signals.js";
import { type DaemonLog, openDaemonLog } from "./events/daemon-log.js";
import type { NewDaemonEvent } from "./events/differences.js";
import { ExitStatus } from "./exit-status.js";
import { TakeHooks, withHooks } from "./hooks/take-hooks.js";
import { complain } from "./log.js";
import { NbdListeners } from "./nbd-listeners.js";
import { NbdSocket, nbdSocketPath } from "./nbd-socket.js";
import {
  hooksOf,
  metricsSocketPathOf,
  nbdListenerOf,
  socketPathOf,
  type Values,
} from "./options.js";
import { takePassedSockets, usableSockets } from "./passed-sockets.js";
import { endAtOnce } from "./process-end.js";
import { surviveFinalKill } from "./process-setup.js";
import { ServiceManager } from "./service-manager.js";
import { SupervisorLink } from "./supervisor-link.js";

/** Grace for operations of clients when devices are left to the next daemon. */
const LEAVE_GRACE_MS = 120_000;
/** A daemon whose supervisor has died may still be leaving. */
const TAKE_OVER_TIMEOUT_MS = 5_000;

/** Serves until it has to end. */
export async function serve(
  values: Values,
  options: DriverOptions,
  logger: Logger,
  inForce: InForce,
): Promise<void> {
  const isSupervised = values.supervised === true || values.standby === true;
  const link = isSupervised ? new SupervisorLink() : undefined;
  const signals = new EndSignals();
  // The supervisor notifies systemd for its daemons.
  const manager = isSupervised
    ? undefined
    : new ServiceManager({ environment: process.env, pid: process.pid, logger });
  process.on("uncaughtException", (error) => {
    logger.fatal({ err: error }, "unexpected failure: leaving the devices to the next daemon");
    endAtOnce(ExitStatus.FAILED);
  });
  const configured = new Configured(inForce, values, logger);
  const passed = passedTo(values, logger);
  const { stateDirectory = presentStateDirectory() } = options;
  try {
    const driver = await startDriver(
      values,
      { ...options, stateDirectory, configuration: () => configured.status() },
      link,
      signals,
    );
    const operations = new DaemonOperations({
      devices: driver,
      logger,
      keep: values.keep === true,
      link,
      isGoingDown,
      onStay: () => {
        surviveFinalKill();
        link?.stays();
      },
    });
    // First, so that a client that finds the daemon serving finds its exports, too.
    const nbd = await NbdSocket.start({ ...passed.nbd, exports: driver.nbd, logger });
    const listeners = new NbdListeners(driver.nbd, logger, passed.tcp);
    await listeners.configure(nbdListenerOf(values));
    const version = DAEMON_VERSION;
    const events = openDaemonLog({ stateDirectory, driver, logger, version });
    const report = (event: NewDaemonEvent) => events?.push(event);
    const begunFile = join(stateDirectory, StateFile.hooksBegun);
    const hooks = new TakeHooks({ ...hooksOf(values), begunFile, logger, report });
    const control = withHooks(configured.watching(driver), hooks, report);
    const own = { daemon: operations, nbd: listeners };
    const controls = { control, ...own, ...(events && { events }), ...passed.control };
    const server = await startServer(values, driver, controls, logger).catch(async (error) => {
      // A retry of either that is under way must not be cut off half way.
      await Promise.all([nbd.close(), listeners.end()]);
      throw error;
    });
    link?.serving();
    link?.onEnd((signal) => operations.onSignal(signal));
    link?.onLost(() => onSupervisorLost(operations, logger));
    signals.handle((signal) => operations.onSignal(signal));
    void events?.begin();
    void hooks.finishEarlier();
    void configured.attachTo(driver).then(() => {
      link?.settled();
      manager?.ready("serves");
    });
    const ending = await operations.ending;
    configured.end(ending === "handOver");
    if (ending === "detach") manager?.stopping();
    signals.release();
    await Promise.all([nbd.close(), listeners.end()]);
    const stopsLast = values["stops-last"] === true;
    await end(ending, { driver, server, events, logger, stopsLast });
    configured.forget();
    link?.close();
  } catch (error) {
    const hint = error instanceof ControlError ? `. ${error.hint ?? ERRORS[error.code].hint}` : "";
    complain(`${(error as Error).message}${hint}`);
    // Devices in use wait for the next daemon, because this one cannot be reached.
    endAtOnce(ExitStatus.FAILED);
  }
}

/** The sockets of the service manager; the daemon creates missing ones. */
function passedTo(values: Values, logger: Logger) {
  const path = socketPathOf(values);
  const paths = { control: path, nbd: nbdSocketPath(path) };
  const all = takePassedSockets(process.env, process.pid);
  const { control, nbd, tcp } = usableSockets(all, paths, logger);
  return {
    control: control === undefined ? {} : { listenFd: control },
    nbd: { socketPath: paths.nbd, listenFd: nbd },
    tcp,
  };
}

async function startDriver(
  values: Values,
  given: DriverOptions,
  link: SupervisorLink | undefined,
  signals: EndSignals,
): Promise<Driver> {
  const options: DriverOptions = {
    ...given,
    // Its devices wait for a server, which only a new process can be.
    reactorLostStatus: ExitStatus.REACTOR_LOST,
    onReactorLost: () => endAtOnce(ExitStatus.REACTOR_LOST),
    ...(link === undefined ? {} : { takeOverTimeoutMs: TAKE_OVER_TIMEOUT_MS }),
  };
  if (values.standby !== true || link === undefined) {
    signals.listen();
    return await Driver.start(options);
  }
  // Devices first, because after a crash their users wait. So a standby loads the control API beforehand.
  await import("@blksnap/api-server");
  link.onLost(() => process.exit(ExitStatus.ENDED));
  const untilTurn = async () => {
    await link.untilTurn();
    link.onLost(() => undefined);
    signals.listen();
  };
  return await Driver.start({ ...options, untilTurn });
}

async function startServer(
  values: Values,
  driver: Driver,
  controls: Pick<ControlServerOptions, "control" | "daemon" | "nbd" | "events" | "listenFd">,
  logger: Logger,
): Promise<ControlServer> {
  const socketPath = socketPathOf(values);
  const metricsSocketPath = metricsSocketPathOf(values);
  try {
    const { startControlServer } = await import("@blksnap/api-server");
    const version = DAEMON_VERSION;
    const server = await startControlServer({
      socketPath,
      logger,
      version,
      ...controls,
      ...(metricsSocketPath === undefined ? {} : { metricsSocketPath }),
    });
    logger.info({ socketPath }, "serving");
    return server;
  } catch (error) {
    const inUse = await driver.devicesInUse();
    // No end was requested: detached devices stay the next daemon's to resume.
    if (inUse.length === 0) await driver.stop(false, undefined, true);
    throw error;
  }
}

interface Parts {
  readonly driver: Driver;
  readonly server: ControlServer;
  readonly events: DaemonLog | undefined;
  readonly logger: Logger;
  readonly stopsLast: boolean;
}

async function end(ending: Ending, parts: Parts): Promise<void> {
  const { driver, server, events, logger } = parts;
  if (ending === "detach") {
    const closing = parts.stopsLast && (await isEndOfBoot());
    await server.close();
    events?.ending();
    // While this daemon still owns the state directory.
    const left = await driver.stop(closing, () => events?.close(false));
    if (left.length > 0) events?.close(true);
    if (left.length === 0) {
      logger.info({ closing }, "ended");
      return;
    }
    const text = `ended, but not completely: ${left.join("; ")}. The next daemon resumes that`;
    logger.error({ left }, text);
    complain(text);
    endAtOnce(ExitStatus.LEFT);
  }
  await server.close(LEAVE_GRACE_MS);
  events?.close(true);
  await driver.leave();
  logger.info({ ending }, "left the devices to the next daemon");
  endAtOnce(ending === "handOver" ? ExitStatus.HANDED_OVER : ExitStatus.ENDED);
}

/** Under systemd the supervisor is restarted, and starts a daemon that continues. */
function onSupervisorLost(operations: DaemonOperations, logger: Logger): void {
  if (process.env["INVOCATION_ID"] === undefined) {
    logger.error("the supervisor has died: no daemon resumes after this one");
    return;
  }
  logger.error("the supervisor has died: handing over to the one that systemd starts");
  operations.leave();
}
