export { type DatagramReceiver, receiveDatagrams } from "./datagrams.js";
export { Dice } from "./dice.js";
export { eventually } from "./eventually.js";
