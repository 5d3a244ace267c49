import { spawn } from "node:child_process";

/** Node has no datagrams of Unix sockets, but every Debian has Perl's base. */
const RECEIVER = `
use Socket;
my $name = $ARGV[0] =~ s/^@/\\0/r;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die $!;
bind($socket, pack_sockaddr_un($name)) or die $!;
$| = 1;
print "bound\\n\\0";
while (defined recv($socket, my $text, 65536, 0)) { print "$text\\0"; }
`;

export interface DatagramReceiver {
  readonly pid: number;
  /** The datagrams received so far. */
  readonly received: readonly string[];
  close(): Promise<void>;
}

/** Receives at a Unix socket; an abstract name begins with "@". Resolves when it is ready. */
export async function receiveDatagrams(path: string): Promise<DatagramReceiver> {
  const child = spawn("perl", ["-e", RECEIVER, path], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((done) => child.once("close", () => done()));
  const received: string[] = [];
  let rest = "";
  const bound = new Promise<void>((done, fail) => {
    child.once("error", fail);
    child.once("close", () => fail(new Error(`nothing is bound to ${path}`)));
    child.stdout.setEncoding("utf8").on("data", (part: string) => {
      const texts = (rest + part).split("\0");
      rest = texts.pop() ?? "";
      if (texts[0] === "bound\n") {
        texts.shift();
        done();
      }
      received.push(...texts);
    });
  });
  await bound;
  return {
    pid: child.pid as number,
    received,
    close: async () => {
      child.kill();
      await ended;
    },
  };
}
