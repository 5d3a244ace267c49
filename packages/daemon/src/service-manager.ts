/**
 * Messages to systemd, by the protocol of sd_notify(3): a datagram of lines to the socket that the environment names.
 * Without one, nothing is sent.
 *
 * The main process sends them: under --supervise the supervisor. Its watchdog pings stand for itself alone: a kill
 * for its silence costs one handover, because it holds no device. A daemon is not watched by a clock: a kill would
 * not free a thread that waits in the kernel.
 *
 * The addon sends the datagram. A systemd-notify(1) for each ping would need memory for a fork when memory is short,
 * and its message would come from another process (NotifyAccess=).
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

  /** Removes the variables from the environment: they are not for child processes. */
  constructor({ environment, pid, logger, send = sendDatagram }: ServiceSurroundings) {
    this.#path = environment["NOTIFY_SOCKET"] || undefined;
    this.#logger = logger;
    this.#send = send;
    const timeoutUs = Number(environment["WATCHDOG_USEC"] ?? 0);
    const isMeant = [undefined, String(pid)].includes(environment["WATCHDOG_PID"]);
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete environment[name];
    if (this.#path === undefined || !(timeoutUs > 0) || !isMeant) return;
    // Half of it, as sd_watchdog_enabled(3) recommends.
    this.#watchdog = setInterval(() => this.#notify("WATCHDOG=1"), timeoutUs / 2000);
    this.#watchdog.unref();
  }

  /** The service is ready: its devices are attached, or their wait has ended. */
  ready(status: string): void {
    this.#notify(`READY=1\nSTATUS=${status}`);
  }

  status(status: string): void {
    this.#notify(`STATUS=${status}`);
  }

  stopping(): void {
    this.#notify("STOPPING=1");
  }

  #notify(lines: string, attempt = 1): void {
    if (this.#path === undefined) return;
    const sent = this.#send(this.#path, lines);
    if (sent >= 0) return;
    if (sent === -EAGAIN && attempt < SEND_AGAIN_MAX) {
      setTimeout(() => this.#notify(lines, attempt + 1), SEND_AGAIN_INTERVAL_MS).unref();
      return;
    }
    this.#logger.warn({ lines, why: errnoName(sent) }, "the service manager could not be notified");
  }
}
