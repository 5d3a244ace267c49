// Loads a file of a bundle with the code that was compiled for it when it was made (tools/bundle.mjs).
//
// V8 takes that code where it is of the same V8 with the same flags, and compiles otherwise. Of the file it
// compares the length alone: so the name of both has the digest of what is in it.
"use strict";
const { readFileSync, writeFileSync } = require("node:fs");
const Module = require("node:module");
const { dirname } = require("node:path");
const { Script } = require("node:vm");

function cachePathOf(path) {
  return path.replace(/\.js$/, ".cache");
}

function readIfThere(path) {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

function run(script, path) {
  const module = { exports: {} };
  const require = Module.createRequire(path);
  script
    .runInThisContext()
    .call(module.exports, module.exports, require, module, path, dirname(path));
  return module.exports;
}

/** Bundles are ASCII, which is quicker to read than what may not be. */
function scriptOf(path, cachedData) {
  return new Script(Module.wrap(readFileSync(path, "latin1")), { filename: path, cachedData });
}

/** Answers what the file at `path` exports. */
exports.load = (path) => {
  // Source maps are read by Node's own way of loading only.
  if (process.sourceMapsEnabled) return require(path);
  return run(scriptOf(path, readIfThere(cachePathOf(path))), path);
};

if (require.main === module) {
  const path = process.argv[2];
  const script = scriptOf(path);
  try {
    run(script, path);
  } catch (error) {
    // What comes before a thread's own part has been compiled by now.
    if (!error.message.endsWith("this module is for a worker thread")) throw error;
  }
  writeFileSync(cachePathOf(path), script.createCachedData());
}
