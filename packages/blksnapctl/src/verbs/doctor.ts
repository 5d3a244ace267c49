/** doctor: problems of this host, seen from outside of the daemon and by the daemon itself. */
import type { DoctorCheck, StatusResponse } from "@blksnap/api";
import { type BlksnapClient, BlksnapClientError } from "@blksnap/client";
import { hostReport } from "../host-report.js";
import { configurationTroubles, stalledReactors, troublesOf } from "../troubles.js";
import { counted } from "../units.js";
import { parsePath } from "../values.js";
import type { Context, Given } from "../verb.js";

/** A daemon that does not answer by then counts as hung. */
const ANSWER_TIMEOUT_MS = 30_000;

export async function doctor(context: Context, given: Given): Promise<void> {
  const { client, json, print, printJson, notAllWell } = context;
  const stateDirectory = given.one("state-dir");
  const report = await hostReport({
    socketPath: client.socketPath,
    stateDirectory:
      stateDirectory === undefined ? undefined : parsePath(stateDirectory, "state-dir"),
    fix: given.has("fix"),
  });
  const checks = [...report.checks, ...(await askDaemon(client, report.version))];
  if (checks.some(({ state }) => state !== "ok")) notAllWell();
  if (json) return printJson({ version: report.version, checks });
  for (const check of worstLast(checks)) print(lineOf(check));
}

/** What is wrong comes after all else, where a terminal shows it. */
function worstLast(checks: readonly DoctorCheck[]): DoctorCheck[] {
  const rank = { ok: 0, warning: 1, error: 2 } as const;
  return checks.toSorted((one, other) => rank[one.state] - rank[other.state]);
}

function lineOf({ state, check, what, why, hint, fixed }: DoctorCheck): string {
  const reason = why === undefined ? "" : `; ${why}`;
  const advice = hint === undefined ? "" : `. ${hint}`;
  return `${(fixed ? "fixed" : state).padEnd(7)}  ${check}: ${what}${reason}${advice}\n`;
}

async function askDaemon(client: BlksnapClient, onDisk: string): Promise<DoctorCheck[]> {
  let status: StatusResponse;
  try {
    status = await client.status({ timeoutMs: ANSWER_TIMEOUT_MS });
  } catch (error) {
    if (!(error instanceof BlksnapClientError)) throw error;
    // The host's checks have reported already that none runs.
    if (error.code === "DAEMON_NOT_RUNNING") return [];
    const { message: what, hint } = error;
    return [
      {
        check: "control_api",
        state: "error",
        what,
        why: "a device cannot be attached or detached",
        hint,
      },
    ];
  }
  return [
    { check: "control_api", state: "ok", what: `the daemon answers at ${client.socketPath}` },
    versionCheck(status, onDisk),
    ...reactorChecks(status),
    ...configurationTroubles(status).map((trouble) => ({
      check: "configuration",
      state: "warning" as const,
      ...trouble,
    })),
    ...waitingChecks(status),
    ...untrackedChecks(status),
    ...deviceChecks(status),
  ];
}

function versionCheck({ daemon }: StatusResponse, onDisk: string): DoctorCheck {
  const check = "version";
  if (daemon.version === onDisk) return { check, state: "ok", what: `blksnapd ${onDisk}` };
  const what = `version ${daemon.version} runs, ${onDisk} is installed`;
  const why = "repairs in the new version are not in effect yet";
  return { check, state: "warning", what, why, hint: "blksnapctl daemon upgrade" };
}

function reactorChecks(status: StatusResponse): DoctorCheck[] {
  const check = "reactors";
  const stalled = stalledReactors(status);
  if (stalled.length > 0) return stalled.map((one) => ({ check, state: "error", ...one }));
  const what = `${counted(status.reactors.length, "reactor")} running`;
  return [{ check, state: "ok", what }];
}

function waitingChecks({ waiting }: StatusResponse): DoctorCheck[] {
  return waiting.map(({ device, front, why }) => ({
    check: "waiting_fronts",
    state: "error",
    what: `${front} of ${device} is not served yet`,
    why: `its users wait: ${why}`,
    hint: "It is resumed as soon as its device and the kernel allow it",
  }));
}

function untrackedChecks({ untracked }: StatusResponse): DoctorCheck[] {
  // A daemon of an earlier version does not report it.
  return (untracked ?? []).map(({ device, since, why, given_up }) => ({
    check: "devices",
    state: given_up ? "error" : "warning",
    what: `${device} is not tracked since ${since}`,
    why: why ?? "its node got another table, and it is being attached again",
    hint: given_up
      ? `It is NOT attached again automatically: blksnapctl attach --device ${device} when the cause is repaired, or detach`
      : "It is attached again as soon as possible; blksnapctl detach gives it up",
  }));
}

function deviceChecks({ trackers, snapshots }: StatusResponse): DoctorCheck[] {
  return trackers.flatMap((tracker) =>
    troublesOf(tracker, snapshots).map(({ what, hint }) => ({
      check: "devices",
      state: "warning" as const,
      what: `${tracker.device}: ${what}`,
      hint,
    })),
  );
}
