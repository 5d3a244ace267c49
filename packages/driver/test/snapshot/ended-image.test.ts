/** Images that another program deletes while they are started. */
import { test } from "uvu";
import * as assert from "uvu/assert";
import { noteImageEnd } from "../../dist/snapshot/ended-image.js";
import { type Member, openImage, recoverImage } from "../../dist/snapshot/member.js";

const NUMBER = 7;

/** @param endsAt when the queue of the image ends; "before" is an earlier image's end, which is reported late */
async function started(way: "open" | "recover", endsAt: "before" | "queue") {
  const said: string[] = [];
  const names: string[] = [];
  let isLive = true;
  const tracker = {
    id: 1,
    device: "/dev/one",
    reactor: 0,
    front: { id: 3 },
    backing: {},
    geometry: {},
  };
  const member = {
    ...{ tracker, area: { id: "the area" }, image: undefined, imageLink: undefined },
    ...{ imageNumber: NUMBER, hasEarlyEnd: false },
  } as unknown as Member;
  const snapshot = {
    ...{ id: "one", readOnlyImages: false, releasableImages: false },
    members: new Map([[1, member]]),
    save: () => undefined,
    saveIfPossible: () => said.push(`save image ${member.imageNumber}`),
    fault: (_: object, area: string, errno: number) => said.push(`fault ${area}: ${errno}`),
  } as never;
  const logger = { error: (_: object, text: string) => said.push(text) } as never;
  const end = (at: typeof endsAt) => {
    if (at === endsAt) noteImageEnd(snapshot, tracker as never, logger);
  };
  const image = {
    path: `/dev/ublkb${NUMBER}`,
    get isLive() {
      return isLive;
    },
    noteEnd(forgetNumber: () => void) {
      isLive = false;
      forgetNumber();
      return true;
    },
  };
  const serve = async ({ startQueue }: { startQueue(queue: object): Promise<void> }) => {
    end("before");
    await startQueue({});
    end("queue");
    return image;
  };
  const frontend = {
    kind: "ublk",
    start: serve,
    resume: (_: number, serving: never) => serve(serving),
    links: { add: (_: string, path: string) => names.push(path) },
  };
  const context = { frontend, logger, reactors: { request: async () => undefined } } as never;
  await (way === "open" ? openImage : recoverImage)(context, snapshot, member);
  return { said, names, member };
}

for (const [way, endsAt] of [
  ["open", "queue"],
  ["recover", "queue"],
] as const) {
  test(`${way}: an image that ends (${endsAt}) before it has a name is reported, and gets none`, async () => {
    const { said, names, member } = await started(way, endsAt);
    const text = `another program has ended the image /dev/ublkb${NUMBER}`;
    assert.equal(said, ["save image undefined", text, "fault the area: 19"]);
    assert.equal(names, []);
    assert.is(member.image?.isLive, false);
  });
}

for (const way of ["open", "recover"] as const) {
  test(`${way}: the late report of an earlier image's end is not taken for this one's`, async () => {
    const { said, names } = await started(way, "before");
    assert.equal(said, []);
    assert.equal(names, [`/dev/ublkb${NUMBER}`]);
  });
}

test.run();
