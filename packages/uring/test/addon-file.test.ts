import { chmodSync, cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { UringError } from "@blksnap/uring";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { addonPaths, loadAddon, type Platform, thisPlatform } from "../dist/addon-file.js";
import { packageDir, runChild, withFolder } from "./support.js";

const { platform, arch } = process;
const HERE: Platform = {
  platform: "linux",
  arch,
  glibcVersion: "2.36",
  nodeVersion: "v20.19.0",
  nodeApiVersion: 9,
};
const MACHINES = { x64: 62, arm64: 183 } as const;
const otherArch = arch === "x64" ? "arm64" : "x64";

function elfOf(machine: number): Uint8Array {
  const head = new Uint8Array(64);
  head.set([0x7f, 0x45, 0x4c, 0x46]);
  new DataView(head.buffer).setUint16(18, machine, true);
  return head;
}

/** Puts an addon with its program there. */
function place(path: string, content = elfOf(MACHINES[arch as "x64" | "arm64"])): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  const program = join(dirname(path), "uring-apart");
  writeFileSync(program, "");
  chmodSync(program, 0o755);
}

function refusing(text: string) {
  return () => {
    throw new Error(text);
  };
}

/** The message with which loading fails. */
function messageOf(folder: string, load: (path: string) => unknown, where = HERE): string {
  try {
    loadAddon(folder, () => where, load);
  } catch (error) {
    assert.instance(error, UringError);
    assert.is((error as UringError).code, "ADDON_MISSING");
    return (error as UringError).message;
  }
  throw new Error("the addon was loaded");
}

test("a local build precedes the package's own", () => {
  withFolder((folder) => {
    const [built, prebuilt] = addonPaths(folder, platform, arch) as [string, string];
    assert.match(prebuilt, `${platform}-${arch}-glibc`);
    place(prebuilt);
    const load = (path: string) => `loaded ${path}`;
    assert.equal(
      loadAddon(folder, () => HERE, load),
      {
        path: prebuilt,
        exports: `loaded ${prebuilt}`,
      },
    );
    place(built);
    assert.is(loadAddon(folder, () => HERE, load).path, built);
  });
});

test("an addon that does not fit is skipped for one that does", () => {
  withFolder((folder) => {
    const [built, prebuilt] = addonPaths(folder, platform, arch) as [string, string];
    place(built);
    place(prebuilt);
    const load = (path: string) => {
      if (path === built) throw new Error("undefined symbol: napi_new");
      return 1;
    };
    assert.is(loadAddon(folder, () => HERE, load).path, prebuilt);
  });
});

test("each missing path is named, with the way to build", () => {
  withFolder((folder) => {
    const message = messageOf(folder, () => 1);
    for (const path of addonPaths(folder, platform, arch)) {
      assert.match(message, `${path} is not there`);
    }
    assert.match(message, "npm explore @blksnap/uring -- npm run build:native");
    assert.match(message, "glibc 2.36, Node v20.19.0");
  });
});

test("a program that is missing, or may not be executed", () => {
  withFolder((folder) => {
    const [built, prebuilt] = addonPaths(folder, platform, arch) as [string, string];
    place(built);
    place(prebuilt);
    rmSync(join(dirname(built), "uring-apart"));
    chmodSync(join(dirname(prebuilt), "uring-apart"), 0o644);
    const message = messageOf(folder, () => 1);
    assert.match(message, `${built}: its program uring-apart is not there`);
    assert.match(message, `${prebuilt}: its program uring-apart may not be executed`);
  });
});

for (const [what, { content, text, where = {}, expected }] of Object.entries<{
  content?: Uint8Array<ArrayBuffer>;
  text: string;
  where?: Partial<Platform>;
  expected: string;
}>({
  "another architecture": {
    content: elfOf(MACHINES[otherArch]) as Uint8Array<ArrayBuffer>,
    text: "wrong ELF class or no such file",
    expected: `is for ${otherArch}, and this Node is for ${arch}`,
  },
  "a damaged file": {
    content: new Uint8Array(3),
    text: "file too short",
    expected: "is for no machine at all (damaged)",
  },
  "an older glibc": {
    text: "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by uring.node)",
    where: { glibcVersion: "2.31" },
    expected: "needs glibc 2.34, and this machine has 2.31",
  },
  "an older libstdc++": {
    text: "/lib/libstdc++.so.6: version `GLIBCXX_3.4.22' not found (required by uring.node)",
    expected: "needs a newer libstdc++, with GLIBCXX_3.4.22",
  },
  "a mount without exec": {
    text: "uring.node: failed to map segment from shared object",
    expected: "its file system is mounted noexec, or a policy forbids it",
  },
  "anything else": {
    text: "undefined symbol: napi_new\nRequire stack:\n- x",
    expected: "cannot be loaded: undefined symbol: napi_new\n",
  },
})) {
  test(`${what} is named as the cause`, () => {
    withFolder((folder) => {
      const [built] = addonPaths(folder, platform, arch) as [string];
      place(built, content);
      const message = messageOf(folder, refusing(text), { ...HERE, ...where });
      assert.ok(message.includes(expected), message);
      assert.match(message, `${built} `);
    });
  });
}

test("musl is named as the cause", () => {
  withFolder((folder) => {
    const [, prebuilt] = addonPaths(folder, platform, arch) as [string, string];
    place(prebuilt);
    const { glibcVersion: _, ...musl } = HERE;
    const text = "Error loading shared library ld-linux-x86-64.so.2: No such file or directory";
    const message = messageOf(folder, refusing(text), musl);
    assert.match(message, "is for glibc, and this Node uses another C library, such as musl");
    assert.match(message, `linux ${arch}, no glibc`);
  });
});

test("a platform without io_uring, and a Node that is too old", () => {
  withFolder((folder) => {
    const darwin = messageOf(folder, () => 1, { ...HERE, platform: "darwin" });
    assert.match(darwin, "io_uring is a part of Linux, and this is darwin");
    const old = messageOf(folder, () => 1, {
      ...HERE,
      nodeVersion: "v16.20.2",
      nodeApiVersion: 8,
    });
    assert.match(old, "Node v16.20.2 has Node-API 8, and 9 is needed: use Node 20.19 or later");
  });
});

test("this machine is described by what Node says", () => {
  const here = thisPlatform();
  assert.is(here.arch, arch);
  assert.match(here.glibcVersion ?? "", /^2\.\d+$/);
  assert.ok(here.nodeApiVersion >= 9);
});

test("importing the package without an addon reports that", () => {
  withFolder((folder) => {
    cpSync(join(packageDir, "dist"), join(folder, "dist"), { recursive: true });
    cpSync(join(packageDir, "package.json"), join(folder, "package.json"));
    const below = join(folder, "node_modules/@blksnap");
    mkdirSync(below, { recursive: true });
    symlinkSync(join(packageDir, "../errors"), join(below, "errors"));
    const module = pathToFileURL(join(folder, "dist", "index.js")).href;
    const child = runChild(
      `await import(${JSON.stringify(module)}).catch((e) => console.log(e.code, e.message));`,
    );
    assert.match(child.output, /^ADDON_MISSING @blksnap\/uring: no native addon fits/);
    assert.match(child.output, `${folder}/build/Release/uring.node is not there`);
  });
});

test.run();
