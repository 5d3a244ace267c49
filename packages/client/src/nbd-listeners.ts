/** TCP addresses at which the daemon accepts NBD clients. */
import type {
  NbdListener,
  NbdListenerList,
  NbdListenerOpenRequest,
  NbdListenerQuery,
} from "@blksnap/api";
import { query } from "./request-path.js";
import { type Call, type CallOptions, sendForJson } from "./transport.js";

const PATH = "/v1/nbd/listeners";

type MakeCall = (
  method: Call["method"],
  path: string,
  options?: CallOptions,
  body?: unknown,
) => Call;

export class NbdListeners {
  readonly #call: MakeCall;

  constructor(call: MakeCall) {
    this.#call = call;
  }

  async list(options?: CallOptions): Promise<readonly NbdListener[]> {
    return (await sendForJson<NbdListenerList>(this.#call("GET", PATH, options))).listeners;
  }

  /** Accepts clients there, as long as this daemon lives. */
  open(request: NbdListenerOpenRequest, options?: CallOptions): Promise<NbdListener> {
    return sendForJson(this.#call("POST", PATH, options, request));
  }

  /** Closes it and the connections of its clients. Returns its last state. */
  close({ address, port }: NbdListenerQuery, options?: CallOptions): Promise<NbdListener> {
    return sendForJson(this.#call("DELETE", query(PATH, { address, port }), options));
  }
}
