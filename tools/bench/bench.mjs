// Benchmarks: each prints one table of ratios that were measured side by side in one run.
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { runInVm } from "../vm/index.mjs";

const USAGE = `Usage: npm run bench -- NAME [--rounds N] [--json]

  ring           NOPs through a ring: TypeScript against C with liburing, on this machine
  passthrough    file target and tracked front against the kernel's loop device, in the VM
  persistent     a persistent tracker against one that is not, in the VM

Medians of interleaved rounds. Only ratios within one table mean something: the VM is emulated.
`;

const BENCHES = {
  ring: (args) => runHere("ring.mjs", args),
  passthrough: (args) => runInGuest("guest/passthrough.mjs", args),
  persistent: (args) => runInGuest("guest/persistent.mjs", args),
};

function runHere(script, args) {
  const path = fileURLToPath(new URL(script, import.meta.url));
  return spawnSync(process.execPath, [path, ...args], { stdio: "inherit" }).status ?? 1;
}

async function runInGuest(script, args) {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const result = await runInVm({
    command: [process.execPath, path, ...args],
    cwd: process.cwd(),
    timeLimitMs: 1_800_000,
    onStdout: (chunk) => process.stdout.write(chunk),
    onStderr: (chunk) => process.stderr.write(chunk),
  });
  return result.status ?? 1;
}

const [name, ...args] = process.argv.slice(2);
const bench = BENCHES[name];
if (bench === undefined) {
  process.stderr.write(name === undefined ? USAGE : `bench: no bench "${name}"\n\n${USAGE}`);
  process.exit(2);
}
process.exit(await bench(args));
