/** blksnapd as it is built here, for tests that start one. */
import { main } from "../dist/main.js";

await main(process.argv.slice(2));
