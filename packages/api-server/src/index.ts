export { type ControlServer, type ControlServerOptions, startControlServer } from "./server.js";
export { type ClaimedSocket, claimSocket, SOCKET_GROUP } from "./socket.js";
