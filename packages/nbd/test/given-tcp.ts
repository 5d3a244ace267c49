/** A program that gets a TCP socket as descriptor 3 and accepts NBD clients there, its own among them. */
import { NbdClient, TcpListener } from "@blksnap/nbd";
import * as assert from "uvu/assert";
import { MIB, rejectsWith } from "./support.js";
import { withListener } from "./tcp-support.js";

const LISTEN_FD = 3;
const [certificates] = process.argv.slice(2);

if (certificates === "refused") {
  const onClient = (): void => assert.unreachable();
  const given = { listenFd: LISTEN_FD, certificates: null, onClient };
  await rejectsWith(TcpListener.open(given), "NOT_SECURE");
} else {
  const how = certificates === "none" ? { certificates: null } : {};
  await withListener(MIB, { listenFd: LISTEN_FD, ...how }, async ({ listener, folders, uri }) => {
    const plain = `nbd://${listener.address}:${listener.port}/disk`;
    const client = await NbdClient.connect(certificates === "none" ? plain : uri(folders.client));
    await client.write(0, Buffer.alloc(4096, 3));
    assert.is((await client.read(0, 4096))[4095], 3);
    await client.close();
    if (certificates !== "none") await rejectsWith(NbdClient.connect(plain), "HANDSHAKE_REFUSED");
  });
}
