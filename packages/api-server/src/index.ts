export { type ControlServer, type ControlServerOptions, startControlServer } from "./server.js";
export { type ClaimedSocket, claimSocket } from "./socket.js";
