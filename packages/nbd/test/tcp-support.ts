/** A server with a TCP address, and certificates for it. */
import { connect, type Socket as NetSocket, Socket } from "node:net";
import { join } from "node:path";
import { type NbdExport, type NbdServer, TcpListener, type TcpListenerOptions } from "@blksnap/nbd";
import { type Certified, certificateFolder, certify } from "@blksnap/testing";
import { ramDisk, withFolder, withServer } from "./support.js";

/** Folders of certificates, by their properties. */
export interface Folders {
  readonly server: string;
  readonly client: string;
  /** A client's, without a certificate of its own. */
  readonly anonymous: string;
  /** Trusts the server, but is not trusted by it. */
  readonly foreign: string;
  readonly expired: string;
  /** A server's, expired. */
  readonly late: string;
  /** A server's, with another certificate's key. */
  readonly mixed: string;
}

export function makeFolders(folder: string): Folders {
  const ca = certify("a CA");
  const other = certify("another CA");
  const server = certify("a server", ca);
  const make = (name: string, own: { server?: Certified; client?: Certified }): string =>
    certificateFolder(join(folder, name), ca, own);
  return {
    server: make("server", { server }),
    client: make("client", { client: certify("a client", ca) }),
    anonymous: make("anonymous", {}),
    foreign: make("foreign", { client: certify("a stranger", other) }),
    // Its own client would detect it; the test needs the server to.
    expired: make("expired", { client: certify("a client of old", ca, -400) }),
    late: make("late", { server: certify("a server of old", ca, -400) }),
    mixed: make("mixed", { server: { ...server, key: certify("x", ca).key } }),
  };
}

/** Connects the socket of a client to a server at a path. */
function bridge(fd: number, socketPath: string): void {
  const client = new Socket({ fd, allowHalfOpen: true, readable: true, writable: true });
  const server = connect({ path: socketPath, allowHalfOpen: true });
  const ends: NetSocket[] = [client, server];
  client.pipe(server);
  server.pipe(client);
  for (const [index, end] of ends.entries()) {
    end.on("error", () => undefined);
    end.once("close", () => ends[1 - index].destroy());
  }
}

export interface Reached {
  readonly server: NbdServer;
  readonly listener: TcpListener;
  readonly folders: Folders;
  /** Clients that were reported as refused. */
  readonly refused: string[];
  /** Address of the disk for a client with the certificates of a folder. */
  uri(folder: string): string;
}

export async function withListener(
  capacityBytes: number,
  options: Partial<TcpListenerOptions>,
  use: (reached: Reached) => Promise<void>,
  more: readonly NbdExport[] = [],
): Promise<void> {
  await withFolder(async (folder) => {
    const folders = makeFolders(folder);
    await withServer([ramDisk(capacityBytes), ...more], async (server) => {
      const refused: string[] = [];
      const listener = await TcpListener.open({
        ...(options.listenFd === undefined && { address: "127.0.0.1", port: 0 }),
        certificates: folders.server,
        onClient: (fd) => bridge(fd, server.socketPath),
        onRefused: (_, why) => refused.push(why),
        ...options,
      });
      const uri = (of: string): string =>
        `nbds://localhost:${listener.port}/disk?tls-certificates=${of}`;
      try {
        await use({ server, listener, folders, refused, uri });
      } finally {
        await listener.close();
      }
    });
  });
}
