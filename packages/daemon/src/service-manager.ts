/**
 * What systemd is told about the service, by the protocol of sd_notify(3): a datagram of lines to the socket
 * that the environment names. Without one nothing is told.
 *
 * The main process speaks, under --supervise the supervisor. It pings for itself alone: killed for its silence it
 * costs one hand-over, and holds no device. A daemon that it keeps running is watched by what needs it, not
 * by a clock: a kill would not free a thread that waits in the kernel.
 *
 * The datagram is sent by the addon. A process of systemd-notify(1) for each ping would be a fork that needs memory
 * when that is short, and its message would be one of another process (NotifyAccess=).
 */
import { errnoName } from "@blksnap/errors";
import { sendDatagram } from "@blksnap/uring";
import type { Logger } from "pino";

const EAGAIN = 11;
const SEND_AGAIN_INTERVAL_MS = 100;
const SEND_AGAIN_MAX = 100;

export interface ServiceSurroundings {
  readonly environment: Record<string, string | undefined>;
  readonly pid: number;
  readonly logger: Logger;
  readonly send?: (path: string, text: string) => number;
}

export class ServiceManager {
  readonly #path: string | undefined;
  readonly #logger: Logger;
  readonly #send: (path: string, text: string) => number;
  readonly #watchdog: NodeJS.Timeout | undefined;

  /** Takes the variables out of the environment: they are not meant for processes that this one starts. */
  constructor({ environment, pid, logger, send = sendDatagram }: ServiceSurroundings) {
    this.#path = environment["NOTIFY_SOCKET"] || undefined;
    this.#logger = logger;
    this.#send = send;
    const timeoutUs = Number(environment["WATCHDOG_USEC"] ?? 0);
    const isMeant = [undefined, String(pid)].includes(environment["WATCHDOG_PID"]);
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete environment[name];
    if (this.#path === undefined || !(timeoutUs > 0) || !isMeant) return;
    // Half of it, as sd_watchdog_enabled(3) recommends.
    this.#watchdog = setInterval(() => this.#tell("WATCHDOG=1"), timeoutUs / 2000);
    this.#watchdog.unref();
  }

  /** All that the service is for is there, or has been waited for in vain. */
  ready(status: string): void {
    this.#tell(`READY=1\nSTATUS=${status}`);
  }

  status(status: string): void {
    this.#tell(`STATUS=${status}`);
  }

  stopping(): void {
    this.#tell("STOPPING=1");
  }

  #tell(lines: string, attempt = 1): void {
    if (this.#path === undefined) return;
    const sent = this.#send(this.#path, lines);
    if (sent >= 0) return;
    if (sent === -EAGAIN && attempt < SEND_AGAIN_MAX) {
      setTimeout(() => this.#tell(lines, attempt + 1), SEND_AGAIN_INTERVAL_MS).unref();
      return;
    }
    this.#logger.warn({ lines, why: errnoName(sent) }, "the service manager is not told");
  }
}
