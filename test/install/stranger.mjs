/** A user's machine with Node and npm, without the repository and without a compiler. */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";

/** What npm, and programs of ours, start on any Linux; no compiler, no make, no Python. */
const PROGRAMS = ["sh", "env", "uname", "cat", "rm", "mkdir", "fallocate", "flock"];
const TIME_LIMIT_MS = 900_000;

function findProgram(name) {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** Makes a folder with the available programs. */
function programs(folder) {
  mkdirSync(folder);
  const besideNode = (name) => join(dirname(process.execPath), name);
  symlinkSync(process.execPath, join(folder, "node"));
  for (const name of ["npm", "npx"]) {
    const path = existsSync(besideNode(name)) ? besideNode(name) : findProgram(name);
    symlinkSync(path, join(folder, name));
  }
  for (const name of PROGRAMS) symlinkSync(findProgram(name), join(folder, name));
  return folder;
}

export class Stranger {
  /** @param {string} registryUrl has the packages of this repository */
  constructor(registryUrl) {
    this.folder = mkdtempSync(join(tmpdir(), "blksnap-stranger-"));
    const { HOME, LANG, XDG_RUNTIME_DIR } = process.env;
    this.env = {
      HOME,
      LANG,
      XDG_RUNTIME_DIR,
      PATH: programs(join(this.folder, "bin")),
      // Configuration that npm hands to scripts is not passed on: npm runs this test.
      "npm_config_@blksnap:registry": registryUrl,
      npm_config_engine_strict: "true",
      npm_config_audit: "false",
      npm_config_fund: "false",
      npm_config_update_notifier: "false",
      npm_config_prefer_offline: "true",
    };
  }

  /** An empty folder, in which npm finds no package.json above either. */
  project(name) {
    const folder = join(this.folder, name);
    mkdirSync(folder);
    writeFileSync(join(folder, "package.json"), "{}");
    return folder;
  }

  /** @returns {Promise<{ status: number | null, output: string, errors: string }>} */
  run(cwd, command, env = {}) {
    const [program, ...args] = command;
    const child = spawn(program, args, {
      cwd,
      env: { ...this.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: TIME_LIMIT_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (errors += chunk));
    return new Promise((done) => {
      child.on("error", (error) => done({ status: null, output, errors: String(error) }));
      child.on("close", (status) => done({ status, output, errors }));
    });
  }

  end() {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
