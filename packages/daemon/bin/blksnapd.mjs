#!/usr/bin/env node
import { createRequire } from "node:module";

let program;
try {
  program = createRequire(import.meta.url)("../dist/bundle/main.js");
} catch (error) {
  // Such as a native addon that is not built: the stack shows bundled code and helps no reader.
  console.error(`blksnapd: ${error.message}`);
  process.exit(1);
}
await program.main(process.argv.slice(2));
