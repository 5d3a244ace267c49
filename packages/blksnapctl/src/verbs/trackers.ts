/** attach and detach. */
import { usageError } from "../usage-error.js";
import { parsePath } from "../values.js";
import type { Context, Given } from "../verb.js";

export async function attach(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  if (given.has("live") && given.has("front")) {
    throw usageError("give --live or --front, not both");
  }
  const kind = (["live", "front"] as const).find((name) => given.has(name));
  const attached = await client.attach(parsePath(given.need("device"), "device"), {
    persistent: given.has("persistent"),
    ...(kind === undefined ? {} : { kind }),
  });
  if (json) return printJson(attached);
  print(attached.already_attached ? "Already was attached\n" : "Attached successfully\n");
  print(`front=${attached.front}\n`);
  if (attached.live !== null) print(`live=${attached.live}\n`);
}

export async function detach(
  { client, json, print, printJson }: Context,
  given: Given,
): Promise<void> {
  const detached = await client.detach(parsePath(given.need("device"), "device"), {
    forget: given.has("forget"),
  });
  if (json) return printJson(detached);
  const isForgotten = given.has("forget") && detached.front === "";
  print(isForgotten ? "Forgotten: it was not attached\n" : "Detached successfully\n");
}
