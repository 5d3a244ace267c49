/**
 * The addon's functions as a table, which a simulated kernel may put its own into: every call of this package
 * goes through it. Not for programs.
 */
export {
  type NativeMapping,
  type NativeRing,
  type NativeWatcher,
  native,
  type RingOffsets,
  type UringNative,
} from "./native.js";
