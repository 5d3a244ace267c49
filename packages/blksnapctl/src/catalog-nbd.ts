/** The verb for NBD, with its options. */
import { bytes } from "./shared-options.js";
import type { Verb } from "./verb.js";

export const nbdVerb: Verb = {
  name: "nbd",
  action: {
    name: "action",
    describe:
      "list: fronts and images with their addresses; open, close: receive clients of other machines by TCP",
    choices: ["list", "open", "close"],
  },
  describe:
    "Show what NBD clients can read: each front, and each image; and let clients of other machines come, by " +
    "TLS, until the daemon ends",
  options: {
    bytes,
    tcp: {
      describe: "with open and close: where; port 10809 if not given",
      value: "ADDRESS[:PORT]",
    },
    "tls-certs": {
      describe:
        "with open: folder with ca-cert.pem, server-cert.pem, server-key.pem and, where there is one, " +
        "ca-crl.pem. Clients need a certificate that ca-cert.pem has signed",
      value: "DIR",
    },
    "any-client": {
      describe: "with open: ask clients for no certificate; each that can connect can read all",
    },
    writable: {
      describe: "with open: clients may write to exports that are writable at nbd.sock",
    },
    insecure: {
      describe:
        "with open: without TLS, at an address of loopback; every user of this machine can read all",
    },
  },
  examples: [
    ["blksnapctl nbd list", "addresses for nbdinfo, nbdcopy, qemu-img"],
    ["blksnapctl nbd list --json | jq -r .exports[].nbd_uri", "for programs"],
    ["blksnapctl nbd open --tcp 192.0.2.1 --tls-certs /etc/pki/nbd", "for a backup server"],
    ["blksnapctl nbd close --tcp 192.0.2.1", "its connections end"],
  ],
  load: async () => (await import("./verbs/nbd.js")).nbd,
};
