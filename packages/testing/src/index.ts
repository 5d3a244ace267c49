export { Dice } from "./dice.js";
export { eventually } from "./eventually.js";
