/**
 * The addon's functions as a table that a simulated kernel can replace: every call of this package uses it. Not for
 * programs.
 */
export {
  type NativeMapping,
  type NativeRing,
  type NativeWatcher,
  native,
  type RingOffsets,
  type UringNative,
} from "./native.js";
