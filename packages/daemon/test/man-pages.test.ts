/** The man pages agree with the tables of options and keys. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Setting } from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { DAEMON_KEYS, DEVICE_KEYS } from "../dist/config/config.js";
import { ExitStatus } from "../dist/exit-status.js";
import { defaultOf, OPTIONS } from "../dist/option-table.js";

const pages = ["blksnapd.8", "blksnap.toml.5", "blksnap.7"] as const;
const page = (name: (typeof pages)[number]) =>
  readFileSync(join(import.meta.dirname, "../man", name), "utf8");

/** As displayed, on one line. */
function plain(roff: string): string {
  return roff.replaceAll("\\-", "-").replaceAll("\\&", "").replace(/\s+/g, " ");
}

function said(setting: Setting): string {
  const ending = defaultOf(setting) === "" ? "" : ` (default: ${defaultOf(setting)})`;
  return `${setting.help}${ending}.`;
}

test("blksnapd(8) has each option that help shows, and each exit status", () => {
  const text = plain(page("blksnapd.8"));
  for (const setting of OPTIONS.filter(({ internal }) => internal !== true)) {
    const { option } = setting;
    const start = text.search(new RegExp(`\\.TP \\.BI? --${option} `));
    assert.ok(start > 0, option);
    const item = text.slice(start, text.indexOf(" .TP", start + 1));
    assert.ok(item.includes(said(setting)), `${option}: ${item}`);
  }
  for (const status of Object.values(ExitStatus)) assert.match(text, `.TP .B ${status} `);
});

test("blksnap.toml(5) has each key of each table, and no other", () => {
  const text = plain(page("blksnap.toml.5"));
  const section = (name: string) => text.split(`.SH ${name} `)[1]?.split(" .SH ")[0] ?? "";
  for (const [name, keys] of [
    ["[daemon]", DAEMON_KEYS],
    ["[[device]]", DEVICE_KEYS],
  ] as const) {
    const named = [...section(name).matchAll(/\.TP \.B (\S+) /g)].map(([, key]) => key);
    assert.equal(named, [...keys.keys()]);
    for (const setting of keys.values()) assert.ok(section(name).includes(said(setting)));
  }
});

test("man reports no error in the pages", () => {
  if (!existsSync("/usr/bin/groff")) return;
  for (const name of pages) {
    const { stderr } = spawnSync("groff", ["-man", "-Tascii", "-ww", "-z"], { input: page(name) });
    assert.is(stderr.toString(), "", name);
  }
});

test.run();
