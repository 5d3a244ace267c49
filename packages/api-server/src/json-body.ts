/** Reads the JSON body of a request; refuses bodies that are nested too deeply. */
import { ControlError } from "@blksnap/api";

/** Deepest nesting of arrays and objects in a body; the API's own requests need three levels. */
export const BODY_DEPTH_MAX = 16;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** Depth of nesting, checked before parsing so that the parser cannot exhaust the stack. */
function isTooDeep(text: string): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (inString) {
      if (char === BACKSLASH) i++;
      else if (char === QUOTE) inString = false;
    } else if (char === QUOTE) inString = true;
    else if (char === 0x5b || char === 0x7b) {
      if (++depth > BODY_DEPTH_MAX) return true;
    } else if (char === 0x5d || char === 0x7d) depth--;
  }
  return false;
}

/** The parsed body; undefined for an empty one. */
export function parseJsonBody(text: string): unknown {
  if (text === "") return undefined;
  if (isTooDeep(text)) {
    throw new ControlError("REQUEST_INVALID", `the body is nested over ${BODY_DEPTH_MAX} levels`);
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ControlError("REQUEST_INVALID", "the body is not JSON", { cause });
  }
}
