/** The command line of `npm run vm`. */
import { VmError } from "./host.mjs";
import { KERNELS } from "./kernel.mjs";

export const USAGE = `Usage: npm run vm -- [OPTIONS] COMMAND [ARGUMENTS...]

Boots a small VM with ublk over this machine's own files, runs COMMAND in it in the current
folder and ends with its exit status. Nothing that the guest writes reaches this machine, but
for what it puts into the shared folder ($BLKSNAP_VM_SHARE in the guest) and on its disks.

  --time-limit-s N     end the VM after N seconds with status 124 (default 600)
  --memory-mib N       memory of the guest (default 4096)
  --cpus N             processors of the guest (default 2)
  --uml                User Mode Linux in place of the emulator: see tools/vm/README.md
  --kernel SERIES      6.12 (default), or "newest": the newest one in the distribution's backports
  --disk FILE[,ro]     raw image as a disk, the first is /dev/vda; repeatable
  --share DIR          folder that the guest may write, at the same path (default: a fresh one)
  --env NAME=VALUE     variable for the command; repeatable
  --shell              a shell on this terminal instead of a command
  --verbose            show the guest kernel's console on the error output
  --help

Exit status: that of COMMAND (128 + number if a signal ended it); 124 time limit; 125 the VM
failed; 2 wrong use.`;

export class UsageError extends VmError {}

function positiveNumber(name, text) {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`--${name} wants a positive whole number, not "${text}"`);
}

function diskOption(text) {
  const readOnly = text.endsWith(",ro");
  return { path: readOnly ? text.slice(0, -",ro".length) : text, readOnly };
}

function addVariable(env, text) {
  const at = text.indexOf("=");
  if (!/^[A-Za-z_][A-Za-z0-9_]*=/.test(text)) {
    throw new UsageError(`--env wants NAME=VALUE, not "${text}"`);
  }
  env[text.slice(0, at)] = text.slice(at + 1);
}

const WITH_VALUE = {
  "time-limit-s": (to, text) => {
    to.timeLimitMs = positiveNumber("time-limit-s", text) * 1000;
  },
  "memory-mib": (to, text) => {
    to.memoryMib = positiveNumber("memory-mib", text);
  },
  cpus: (to, text) => {
    to.cpus = positiveNumber("cpus", text);
  },
  kernel: (to, text) => {
    if (!KERNELS.includes(text)) {
      throw new UsageError(`--kernel knows ${KERNELS.join(" and ")}, not "${text}"`);
    }
    to.kernelSeries = text;
  },
  disk: (to, text) => to.disks.push(diskOption(text)),
  share: (to, text) => {
    to.shareDir = text;
  },
  env: (to, text) => addVariable(to.env, text),
};

const FLAGS = new Set(["shell", "verbose", "uml", "help"]);

/**
 * Options end at the first other word, so that the command keeps its own options.
 *
 * @param {string[]} words
 */
export function parseOptions(words) {
  const options = { command: [], env: {}, disks: [] };
  let index = 0;
  for (; index < words.length && words[index].startsWith("--"); index++) {
    if (words[index] === "--") {
      index++;
      break;
    }
    const [, name, attached] = /^--([^=]*)(?:=(.*))?$/s.exec(words[index]);
    if (FLAGS.has(name) && attached === undefined) options[name] = true;
    else if (Object.hasOwn(WITH_VALUE, name)) {
      const value = attached ?? words[++index];
      if (value === undefined) throw new UsageError(`--${name} wants a value`);
      WITH_VALUE[name](options, value);
    } else throw new UsageError(`unknown option ${words[index]}`);
  }
  if (options.uml && (options.disks.length > 0 || options.kernelSeries !== undefined)) {
    throw new UsageError("--disk and --kernel are not for --uml");
  }
  options.command = words.slice(index);
  return options;
}
