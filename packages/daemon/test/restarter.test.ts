import { test } from "uvu";
import * as assert from "uvu/assert";
import { restartingService } from "../dist/restarter.js";

const service = {
  environment: { SYSTEMD_EXEC_PID: "42" },
  pid: 42,
  cgroup: "0::/system.slice/blksnapd.service\n",
  property: async (unit: string, name: string) => {
    assert.equal([unit, name], ["blksnapd.service", "Restart"]);
    return "on-failure";
  },
};

async function refusal(given: Partial<typeof service>): Promise<string> {
  try {
    await restartingService({ ...service, ...given });
  } catch (error) {
    assert.is((error as { code: string }).code, "UPGRADE_UNATTENDED");
    return (error as Error).message;
  }
  throw new Error("it was not refused");
}

test("a service that systemd restarts counts as a restarter", async () => {
  assert.is(await restartingService(service), "blksnapd.service");
});

test("an upgrade without a restarter is refused, with the reason", async () => {
  assert.match(await refusal({ environment: {} as never }), /without --supervise/);
  assert.match(await refusal({ pid: 43 }), /not by systemd/);
  assert.match(await refusal({ cgroup: "0::/user.slice/session-1.scope\n" }), /unknown/);
  assert.match(await refusal({ property: async () => "no" }), /blksnapd\.service has Restart=no/);
  const failing = async () => {
    throw new Error("no bus");
  };
  assert.match(await refusal({ property: failing }), /systemctl does not show .*no bus/);
});

test.run();
