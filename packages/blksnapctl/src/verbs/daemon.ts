/** daemon upgrade and daemon stop. */
import { usageError } from "../usage-error.js";
import type { Context, Given } from "../verb.js";

export async function daemon(context: Context, given: Given): Promise<void> {
  if (given.need("action") === "stop") return await stop(context, given.has("keep"));
  if (given.has("keep")) throw usageError("keep: an upgrade always keeps the devices", "USAGE");
  await upgrade(context);
}

async function upgrade({ client, json, print, printJson }: Context): Promise<void> {
  const upgraded = await client.daemonUpgrade();
  if (json) return printJson(upgraded);
  const { from, to, pause_ms } = upgraded;
  const pause = pause_ms === null ? "unknown" : `${pause_ms} ms`;
  print(`${from.version} (pid ${from.pid}) -> ${to.version} (pid ${to.pid}), pause ${pause}\n`);
}

async function stop({ client, json, print, printJson }: Context, keep: boolean): Promise<void> {
  const stopped = await client.daemonStop({ keep });
  if (json) return printJson(stopped);
  print(`Stopped blksnapd, pid ${stopped.pid}\n`);
  for (const device of stopped.kept) print(`kept=${device}\n`);
}
