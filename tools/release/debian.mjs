/**
 * npm run package: a Debian package of what is built.
 *
 * ```
 *   /usr/lib/blksnap/node_modules   the programs' bundles, and what they look for by the names of packages
 *   /usr/bin/blksnapd, blksnapctl   links into it
 *   /usr/lib/blksnap/node           with --with-node: the Node that they run on; else the distribution's
 *   /usr/lib/systemd, udev, …       units, rules, completions, manual, the default configuration
 * ```
 *
 * The package depends on the distribution's Node, which gets security updates from there. Where that is too old,
 * --with-node makes one that carries a Node: 31 MB instead of 1.2. Node's single executables would be two, each with a
 * Node in it, and could not be links to one program.
 */
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import semver from "semver";
import { ROOT } from "./manifests.mjs";
import { nodeBinary } from "./node-binary.mjs";

const USAGE = `Usage: npm run package [-- OPTION...]

Makes release/debian/blksnap_VERSION_ARCHITECTURE.deb of what is built.

  --arch amd64|arm64   default: that of this machine; the other one needs "npm run test:arm64" to have set up its compiler
  --with-node VERSION  for distributions whose Node is too old: the package carries this Node of npm's registry, such as
                       24 (the newest 24.x), and its version ends with +nodeVERSION
  --into FOLDER        default: release/debian
  --help`;

const SOURCES = join(ROOT, "packaging", "debian");
const MODULES = "usr/lib/blksnap/node_modules";
const SCRIPTS = ["preinst", "postinst", "prerm", "postrm"];
const PLATFORMS = { amd64: "linux-x64-glibc", arm64: "linux-arm64-glibc" };
const NODE_NAMES = { amd64: "x64", arm64: "arm64" };
const NODE_PATH = "usr/lib/blksnap/node";
const OWN = { x64: "amd64", arm64: "arm64" }[process.arch];
const packageDir = (folder) => join(ROOT, "packages", folder);
const read = (...path) => readFileSync(join(ROOT, ...path), "utf8");

const NODE_COPYRIGHT = `
Files: ${NODE_PATH}
Copyright: Node.js contributors, and others
License: Node.js
 /usr/share/doc/blksnap/NODE-LICENSE.gz
`;

/** What goes into one package, while it is put together. */
class Tree {
  constructor(folder) {
    this.folder = folder;
  }

  write(path, data, mode = 0o644) {
    const full = join(this.folder, path);
    mkdirSync(dirname(full), { recursive: true });
    writeFileSync(full, data);
    chmodSync(full, mode);
  }

  compress(path, text) {
    this.write(`${path}.gz`, gzipSync(text, { level: 9 }));
  }

  link(path, target) {
    mkdirSync(dirname(join(this.folder, path)), { recursive: true });
    symlinkSync(target, join(this.folder, path));
  }

  copy(from, path, filter = () => true) {
    cpSync(from, join(this.folder, path), { recursive: true, filter });
  }

  /** Of every file, not of folders. */
  files() {
    return readdirSync(this.folder, { recursive: true })
      .filter((path) => !lstatSync(join(this.folder, path)).isDirectory())
      .sort();
  }
}

/** A program: its bundle, which has all but what it looks for by the names of packages. */
function addProgram(tree, folder, name, { isOwn, interpreter }) {
  const to = `${MODULES}/${name}`;
  const from = packageDir(folder);
  if (!existsSync(join(from, "dist/bundle/main.js"))) throw new Error(`${name} is not built`);
  // Code that was compiled beforehand is for the Node that did it, and for its machine.
  const wanted = (path) => !path.endsWith(".map") && (isOwn || !path.endsWith(".cache"));
  tree.copy(join(from, "dist/bundle"), `${to}/dist/bundle`, wanted);
  tree.copy(join(from, "package.json"), `${to}/package.json`);
  const bin = readFileSync(join(from, "bin", `${name}.mjs`), "utf8");
  tree.write(`${to}/bin/${name}.mjs`, bin.replace(/^#!.*/, `#!${interpreter}`), 0o755);
  tree.link(`usr/bin/${name}`, `../lib/blksnap/node_modules/${name}/bin/${name}.mjs`);
}

function addLibraries(tree, platform, binaries) {
  for (const folder of ["driver", "linux-block", "uring"]) {
    const to = `${MODULES}/@blksnap/${folder}/package.json`;
    tree.copy(join(packageDir(folder), "package.json"), to);
  }
  const libexec = "linux-block/libexec";
  tree.copy(packageDir(libexec), `${MODULES}/@blksnap/${libexec}`);
  const isWanted = (path) => !path.endsWith(".debug");
  tree.copy(binaries, `${MODULES}/@blksnap/uring/prebuilds/${platform}`, isWanted);
}

/** The Node that the programs run on, unchanged, with its licence. */
function addNode(tree, { path, licensePath }) {
  tree.copy(path, NODE_PATH);
  chmodSync(join(tree.folder, NODE_PATH), 0o755);
  tree.compress("usr/share/doc/blksnap/NODE-LICENSE", readFileSync(licensePath));
}

function addSystemFiles(tree) {
  const daemon = packageDir("daemon");
  tree.copy(join(daemon, "systemd"), "usr/lib/systemd/system");
  tree.copy(join(daemon, "udev"), "usr/lib/udev/rules.d");
  tree.copy(join(daemon, "tmpfiles"), "usr/lib/tmpfiles.d");
  tree.copy(join(daemon, "system-generators"), "usr/lib/systemd/system-generators");
  tree.copy(join(daemon, "libexec"), "usr/lib/blksnap");
  for (const folder of ["daemon", "blksnapctl"]) {
    for (const page of readdirSync(join(packageDir(folder), "man"))) {
      const section = page.split(".").at(-1);
      tree.compress(`usr/share/man/man${section}/${page}`, read("packages", folder, "man", page));
    }
  }
  const shells = {
    bash: "bash-completion/completions/blksnapctl",
    zsh: "zsh/vendor-completions/_blksnapctl",
    fish: "fish/vendor_completions.d/blksnapctl.fish",
  };
  for (const [shell, path] of Object.entries(shells)) {
    const program = join(packageDir("blksnapctl"), "bin/blksnapctl.mjs");
    const script = execFileSync(process.execPath, [program, "completion", shell]);
    tree.write(`usr/share/${path}`, script);
  }
}

function notices() {
  return ["uring/native/third-party-notices.txt", "daemon/dist/third-party-notices.txt"]
    .concat("blksnapctl/dist/third-party-notices.txt")
    .map((path) => join(packageDir(""), path))
    .filter((path) => existsSync(path))
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
}

function addDocuments(tree, version, node) {
  const folder = "usr/share/doc/blksnap";
  const copyright = readFileSync(join(SOURCES, "copyright"), "utf8");
  tree.write(`${folder}/copyright`, node === undefined ? copyright : copyright + NODE_COPYRIGHT);
  tree.compress(`${folder}/THIRD-PARTY-NOTICES`, notices());
  const date = new Date(Number(gitTime()) * 1000).toUTCString().replace("GMT", "+0000");
  const changes = `blksnap (${version}) unstable; urgency=medium\n\n  * Version ${version}.\n\n -- blksnap <blksnap@localhost>  ${date}\n`;
  tree.compress(`${folder}/changelog`, changes);
}

function gitTime() {
  const fromEnvironment = process.env.SOURCE_DATE_EPOCH;
  if (fromEnvironment !== undefined) return fromEnvironment;
  try {
    const options = { cwd: ROOT, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] };
    return execFileSync("git", ["log", "-1", "--format=%ct"], options).trim();
  } catch {
    return String(Math.floor(Date.now() / 1000));
  }
}

/** All keys with their defaults, as comments. */
async function defaultConfig() {
  const { DAEMON_KEYS, DEVICE_KEYS } = await import(
    join(packageDir("daemon"), "dist/config/config.js")
  );
  const lines = [
    "# Configuration of blksnapd: see blksnap.toml(5). What is commented out is the default.",
  ];
  const shown = ({ default: value, defaultText, option, type }) => {
    if (value === undefined && type !== "flag") return `# ${option}: ${defaultText}`;
    return `# ${option} = ${JSON.stringify(value ?? false)}`;
  };
  lines.push("", "[daemon]");
  for (const setting of DAEMON_KEYS.values()) lines.push(`# ${setting.help}`, shown(setting), "");
  lines.push("# A device that is attached when the daemon starts; as often as there are some.");
  lines.push("# [[device]]");
  for (const { option, help } of DEVICE_KEYS.values()) lines.push(`# ${option}: ${help}`);
  lines.push('# device = "/dev/vg/data"', "# persistent = true", "");
  return lines.join("\n");
}

/** What the control file says of Node. */
function nodeTexts(least, node) {
  if (node !== undefined) return { NEEDS_NODE: "", NODE: ` It carries Node.js ${node.version}.` };
  const text = ` It needs Node.js ${least} or newer: that of Debian 13, or a package nodejs from
 elsewhere on distributions that have an older one.`;
  return { NEEDS_NODE: `nodejs (>= ${least}), `, NODE: text };
}

function addControl(tree, version, architecture, node) {
  const files = tree.files();
  const bytes = files.reduce((sum, path) => sum + lstatSync(join(tree.folder, path)).size, 0);
  const { engines } = JSON.parse(read("package.json"));
  const values = {
    VERSION: version,
    ARCHITECTURE: architecture,
    INSTALLED_KIB: String(Math.ceil(bytes / 1024)),
    ...nodeTexts(semver.minVersion(engines.node).version.replace(/\.0$/, ""), node),
  };
  const control = readFileSync(join(SOURCES, "control"), "utf8");
  tree.write(
    "DEBIAN/control",
    control.replace(/@(\w+)@/g, (_, name) => values[name]),
  );
  tree.write("DEBIAN/conffiles", "/etc/blksnap/blksnap.toml\n");
  for (const name of SCRIPTS) {
    tree.write(`DEBIAN/${name}`, readFileSync(join(SOURCES, name)), 0o755);
  }
  const sums = execFileSync(
    "md5sum",
    files.filter((path) => !path.startsWith("etc/")),
    {
      cwd: tree.folder,
      encoding: "utf8",
    },
  );
  tree.write("DEBIAN/md5sums", sums);
}

async function binariesFor(architecture) {
  if (architecture === OWN) return join(packageDir("uring"), "build", "Release");
  if (architecture !== "arm64") throw new Error(`${architecture} cannot be made on this machine`);
  const { buildForArm64 } = await import("./cross.mjs");
  return buildForArm64();
}

/**
 * @param {object} [options]
 * @param {string} [options.withNode] the version of the Node that it carries, or a range
 * @param {"xz" | "none"} [options.compression]
 * @returns {Promise<string>} the path of the package
 */
export async function makePackage({
  architecture = OWN,
  into = join(ROOT, "release/debian"),
  withNode,
  compression = "xz",
} = {}) {
  const platform = PLATFORMS[architecture];
  if (platform === undefined) throw new Error(`there is no package for ${architecture}`);
  const folder = mkdtempSync(join(tmpdir(), "blksnap-deb-"));
  try {
    chmodSync(folder, 0o755);
    const tree = new Tree(folder);
    const binaries = await binariesFor(architecture);
    const node =
      withNode === undefined ? undefined : nodeBinary(NODE_NAMES[architecture], withNode);
    const { version: own } = JSON.parse(read("package.json"));
    const version = node === undefined ? own : `${own}+node${node.version}`;
    const isOwn = architecture === OWN && node === undefined;
    const interpreter = node === undefined ? "/usr/bin/node" : `/${NODE_PATH}`;
    addProgram(tree, "daemon", "blksnapd", { isOwn, interpreter });
    addProgram(tree, "blksnapctl", "blksnapctl", { isOwn, interpreter });
    if (node !== undefined) addNode(tree, node);
    addLibraries(tree, platform, binaries);
    addSystemFiles(tree);
    addDocuments(tree, version, node);
    tree.write("etc/blksnap/blksnap.toml", await defaultConfig());
    mkdirSync(join(folder, "etc/blksnap/blksnap.toml.d"));
    mkdirSync(join(folder, "etc/blksnap/hooks.d"));
    // As installed, whatever the builder's umask is.
    execFileSync("chmod", ["-R", "u+rwX,go+rX,go-w", folder]);
    addControl(tree, version, architecture, node);
    mkdirSync(into, { recursive: true });
    const path = join(into, `blksnap_${version}_${architecture}.deb`);
    const env = { ...process.env, SOURCE_DATE_EPOCH: gitTime() };
    execFileSync("dpkg-deb", ["--root-owner-group", `-Z${compression}`, "--build", folder, path], {
      env,
    });
    return path;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const { values } = parseArgs({
      options: {
        arch: { type: "string", default: OWN },
        into: { type: "string" },
        "with-node": { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) console.log(USAGE);
    else {
      const { arch: architecture, into, "with-node": withNode } = values;
      console.log(await makePackage({ architecture, into, withNode }));
    }
  } catch (error) {
    console.error(`package: ${error.message}`);
    process.exitCode = 1;
  }
}
