/** A reactor's work between the request for an area and its answer. */
import { readFileSync } from "node:fs";
import { DiffAreaMap } from "@blksnap/engine";
import { ENOMEM } from "@blksnap/errors";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { native } from "../../uring/dist/native.js";
import { abandon, acquireClaim, makeClaim, withdraw } from "../dist/claim.js";
import type { AreaSetup, PrepareAreaRequest } from "../dist/messages.js";
import { SLOTS } from "./device-settings.js";
import { GEOMETRY, POPULATE_WRITE, ServerWorld } from "./server-world.js";

const AREA = "11111111-1111-4111-8111-111111111111";
const MAP_BYTES = DiffAreaMap.byteLength(GEOMETRY);
const SLICE_BYTES = 262_144;
/** Number of tags, each with a place. */
const DEPTH = 16;
const PLACES_BYTES = 4096 + DEPTH * 65_536;

let worlds = 0;

/** Four tags, with a block for each end of a request. */
const IMAGE_WINDOWS_BYTES = 4 * 2 * 4096;

/** A server with an attached device. */
function attached(): ServerWorld {
  worlds++;
  const world = new ServerWorld();
  world.post(1, world.attachRequest(DEPTH), makeClaim());
  // The kernel refuses the commands: the queue ends, and its buffers are freed.
  world.turns(() => world.answers(1).length > 0 && world.mapped === 0);
  world.calls.length = 0;
  return world;
}

function prepareRequest(world: ServerWorld): PrepareAreaRequest {
  const area: AreaSetup = {
    id: AREA,
    map: { fd: world.file(`area-map-${worlds}`, MAP_BYTES), lengthBytes: MAP_BYTES },
    storeCount: 1,
    storeFds: [world.file("store", GEOMETRY.capacityBytes)],
    ...SLOTS,
    slotBytes: 2 ** GEOMETRY.chunkShift,
  };
  return { type: "prepareArea", tracker: 1, area };
}

/** How many mappings of maps of the last world this process has. */
function mapped(): number {
  return readFileSync("/proc/self/maps", "utf8").split(`memfd:area-map-${worlds} `).length - 1;
}

/** The answer to a request for the figures of the device. */
function areaOf(world: ServerWorld, id: number): unknown {
  world.post(id, { type: "counters", tracker: 1 });
  world.turns(() => world.answers(id).length > 0);
  const [answer] = world.answers(id) as { value?: { area: { id: unknown } } }[];
  return answer?.value?.area.id;
}

test("the memory of places is populated slice by slice, with other requests in between", () => {
  const world = attached();
  world.post(2, prepareRequest(world), makeClaim());
  world.turns(() => world.calls.length > 0);
  const first = `populate ${MAP_BYTES} ${SLICE_BYTES}`;
  assert.equal(world.calls, [first]);
  world.post(3, { type: "counters", tracker: 7 });
  world.turns(() => world.answers(3).length > 0);
  assert.equal(world.answers(2), [], "the other request had to wait");
  world.turns(() => world.answers(2).length > 0);
  assert.equal(world.answers(2), [{ re: 2 }]);
  const slices = Array.from({ length: Math.ceil(PLACES_BYTES / SLICE_BYTES) }, (_, index) => {
    const doneBytes = index * SLICE_BYTES;
    return `populate ${MAP_BYTES + doneBytes} ${Math.min(SLICE_BYTES, PLACES_BYTES - doneBytes)}`;
  });
  assert.equal(world.calls.slice(0, slices.length), slices);
  // In one turn: windows of the image's copies and of the last tags, and no place is populated again.
  const rest = world.calls.slice(slices.length);
  assert.equal(rest, [
    `populate 0 ${IMAGE_WINDOWS_BYTES}`,
    `register ${IMAGE_WINDOWS_BYTES}`,
    `register ${DEPTH * 65_536}`,
  ]);
  assert.is(mapped(), 1, "the area has what was populated");
  assert.is(areaOf(world, 4), AREA);
  world.close();
});

test("of an area's memory V8 counts only the map, so its windows cause no garbage collection", () => {
  const world = attached();
  world.viewed.length = 0;
  world.post(2, prepareRequest(world), makeClaim());
  world.turns(() => world.answers(2).length > 0);
  assert.equal(world.answers(2), [{ re: 2 }]);
  assert.equal(world.viewed, [MAP_BYTES + PLACES_BYTES]);
  world.close();
});

test("an area dropped while its memory is populated is not made, and another may follow", () => {
  const world = attached();
  const request = prepareRequest(world);
  world.post(2, request, makeClaim());
  world.turns(() => world.calls.length > 0);
  world.post(3, { type: "dropArea", tracker: 1, area: AREA });
  world.turns(() => world.answers(3).length > 0);
  assert.is(mapped(), 0);
  // The number of the map's descriptor may mean another file now.
  for (const fd of [request.area.map.fd, ...request.area.storeFds]) world.closeFile(fd);
  world.turns(() => world.answers(2).length > 0);
  assert.ok("error" in (world.answers(2)[0] as object));
  assert.is(areaOf(world, 4), null);
  world.post(5, prepareRequest(world), makeClaim());
  world.turns(() => world.answers(5).length > 0);
  assert.equal(world.answers(5), [{ re: 5 }]);
  world.close();
});

test("an area whose caller has given up is not made from reused descriptors", () => {
  const world = attached();
  const request = prepareRequest(world);
  const claim = makeClaim();
  world.post(2, request, claim);
  world.turns(() => world.calls.length > 0);
  abandon(claim);
  for (const fd of [request.area.map.fd, ...request.area.storeFds]) world.closeFile(fd);
  const slices = world.calls.length;
  world.turns(() => world.answers(2).length > 0);
  assert.match(JSON.stringify(world.answers(2)), "its caller no longer waits");
  assert.equal([world.calls.length, mapped(), areaOf(world, 3)], [slices, 0, null]);
  world.close();
});

test("descriptors of a withdrawn area are not used", () => {
  const world = attached();
  const claim = makeClaim();
  assert.ok(withdraw(claim));
  world.post(2, prepareRequest(world), claim);
  assert.is(areaOf(world, 3), null);
  assert.equal([world.calls, world.answers(2), mapped()], [[], [], 0]);
  assert.not(acquireClaim(claim));
  world.close();
});

test("an area whose device ends while its memory is populated reports that", () => {
  const world = attached();
  world.post(2, prepareRequest(world), makeClaim());
  world.turns(() => world.calls.length > 0);
  world.post(3, { type: "awaitFrontEnd", tracker: 1 });
  world.turns(() => world.answers(2).length > 0);
  assert.ok("error" in (world.answers(2)[0] as object));
  assert.is(mapped(), 0);
  world.close();
});

test("an area does without places if memory runs out while they are populated", () => {
  const world = attached();
  const { advise } = native;
  let calls = 0;
  native.advise = (mapping, offset, length, advice) =>
    advice === POPULATE_WRITE && ++calls === 2 ? -ENOMEM : advise(mapping, offset, length, advice);
  world.post(2, prepareRequest(world), makeClaim());
  world.turns(() => world.answers(2).length > 0);
  assert.equal(world.answers(2), [{ re: 2 }]);
  assert.is(mapped(), 1);
  const short = `populate ${MAP_BYTES} ${SLICE_BYTES}`;
  const [, , rest] = world.calls;
  assert.is(world.calls[1], short, "it begins with shorter ones");
  assert.is(rest, `populate ${MAP_BYTES + SLICE_BYTES} 4096`);
  world.close();
});

test.run();
