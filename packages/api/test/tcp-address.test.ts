import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseTcpAddress, tcpAddressText } from "../dist/index.js";

test("an address is IPv4, or IPv6 in brackets; its port defaults to NBD's", () => {
  assert.equal(parseTcpAddress("192.0.2.1"), { address: "192.0.2.1", port: 10_809 });
  assert.equal(parseTcpAddress("[2001:db8::1]:7"), { address: "2001:db8::1", port: 7 });
  const wrong = [
    "",
    "host:1",
    "192.0.2:1",
    "[192.0.2.1]",
    "2001:db8::1",
    "192.0.2.1:0",
    "[::1]:65536",
  ];
  for (const text of wrong) assert.is(parseTcpAddress(text), undefined, text);
});

test("an address has one canonical text, however its zeros are written", () => {
  for (const text of ["[::1]:7", "[0:0:0:0:0:0:0:1]:7", "[0::0001]:7"]) {
    assert.is(tcpAddressText(parseTcpAddress(text)!), "[::1]:7");
  }
  assert.is(tcpAddressText({ address: "192.0.2.1", port: 7 }), "192.0.2.1:7");
});

test.run();
