export { type ControlServer, type ControlServerOptions, startControlServer } from "./server.js";
