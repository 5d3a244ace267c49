import { type ListeningSocket, listeningSocket, UringError } from "@blksnap/uring";
import { NbdError } from "./errors.js";

/** The address of a listening descriptor from the caller. @throws NbdError LISTEN_FAILED */
export function givenSocket(fd: number): ListeningSocket {
  try {
    return listeningSocket(fd);
  } catch (error) {
    if (!(error instanceof UringError)) throw error;
    const what = `descriptor ${fd} is not a unix or TCP stream socket that listens`;
    throw new NbdError("LISTEN_FAILED", what, error.errno, error);
  }
}
