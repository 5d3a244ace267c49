/** The verb for NBD, with its options. */
import { bytes } from "./shared-options.js";
import type { Verb } from "./verb.js";

export const nbdVerb: Verb = {
  name: "nbd",
  action: {
    name: "action",
    describe:
      "list: show fronts and images with their addresses; open, close: start or stop listening on TCP",
    choices: ["list", "open", "close"],
  },
  describe:
    "Show the fronts and images that NBD clients can read; and serve clients on other machines, over TLS, " +
    "until the daemon ends",
  options: {
    bytes,
    tcp: {
      describe: "with open and close: where to listen; the default port is 10809",
      value: "ADDRESS[:PORT]",
    },
    "tls-certs": {
      describe:
        "with open: folder with ca-cert.pem, server-cert.pem, server-key.pem and optionally ca-crl.pem. " +
        "Clients need a certificate signed by ca-cert.pem",
      value: "DIR",
    },
    "any-client": {
      describe:
        "with open: accept clients without a certificate; any that can connect can read everything",
    },
    writable: {
      describe: "with open: clients may write to the exports that are writable at nbd.sock",
    },
    insecure: {
      describe:
        "with open: no TLS, loopback addresses only; every user of this machine can read everything",
    },
  },
  examples: [
    ["blksnapctl nbd list", "addresses for nbdinfo, nbdcopy, qemu-img"],
    ["blksnapctl nbd list --json | jq -r .exports[].nbd_uri", "for programs"],
    ["blksnapctl nbd open --tcp 192.0.2.1 --tls-certs /etc/pki/nbd", "for a backup server"],
    ["blksnapctl nbd close --tcp 192.0.2.1", "ends its connections"],
  ],
  load: async () => (await import("./verbs/nbd.js")).nbd,
};
