/** blksnapd as the compiler has left it, for tests that start one (daemon-program.ts). */
import { main } from "../dist/main.js";

await main(process.argv.slice(2));
