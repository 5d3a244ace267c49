/** Checks of a device when nothing is in flight. */
import { BlockState, RequestOp } from "@blksnap/engine";
import type { SimDevice } from "./sim-device.js";
import { require } from "./violation.js";

/** Reads the whole image, and compares it, the CBT map and the list of lost blocks with the models. */
export function audit(device: SimDevice, quiesce: () => void): void {
  device.cbtModel.check(device.cbt);
  const { engine, area } = device;
  require(engine.copies.liveCount === 0, () => "a copy is left over");
  require(engine.runs.liveCount === 0, () => "a run is left over");
  require(engine.copies.lateCount === 0, () => "a late copy was answered and is late");
  require(engine.runs.lateCount === 0, () => "a late run was answered and is late");
  const records = area?.map.copyRecords;
  for (let place = 0; place < (records?.count ?? 0); place++) {
    require(!records!.isSet(place), () => `the record of place ${place} is left over`);
  }
  require((area?.hungStores ?? 0) === 0, () => "a store that answers is taken as hung");
  require(engine.inflightWrites === 0, () => "writes counted that do not exist");
  if (area === null) device.kept.check();
  if (area === null || device.image.model === null) return;
  device.losses.check(area);
  device.badBlocks.clear();
  const { geometry, blockSectors, chunkSectors } = device;
  for (let chunk = 0; chunk < geometry.chunkCount; chunk++) {
    const blocks = geometry.blocksInChunk(chunk);
    let block = 0;
    while (block < blocks) {
      const lost = area.map.stateAt(chunk, block) === BlockState.LOST;
      const end = lost ? block + 1 : area.map.stateEnd(chunk, block, blocks);
      const first = chunk * chunkSectors + block * blockSectors;
      const endSector = chunk * chunkSectors + geometry.blockEndInChunk(chunk, end - 1) / 512;
      device.image.submit(0, RequestOp.READ, first, endSector - first, 0);
      quiesce();
      require(device.image.lastResult < 0 === lost, () =>
        `audit of sectors ${first} to ${endSector}: ${device.image.lastResult}`);
      block = end;
    }
  }
}
