#!/usr/bin/env node
import { createRequire } from "node:module";

let program;
try {
  program = createRequire(import.meta.url)("../dist/bundle/main.js");
} catch (error) {
  // For example a native addon that is not built: the stack shows bundled code, which helps no reader.
  console.error(`blksnapd: ${error.message}`);
  process.exit(1);
}
await program.main(process.argv.slice(2));
