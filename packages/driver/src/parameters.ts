/**
 * How finely devices are tracked and saved: the kernel module's parameters, by its names and rules.
 */
import { defaultsOf, PARAMETERS, type SettingDefaults } from "@blksnap/api";
import { BLOCK_SHIFT_DEFAULT, BLOCK_SHIFT_MAX, DiffAreaMap } from "@blksnap/engine";

/** Sizes are log2 values. */
export type TrackingParameters = SettingDefaults<typeof PARAMETERS>;

export const PARAMETER_DEFAULTS: TrackingParameters = defaultsOf(PARAMETERS);

const PAGE_SHIFT = 12;
const CHUNK_COUNT_SHIFT_MAX = 40;
/** No map can hold more chunks than this. */
const MAP_COUNT_SHIFT_MAX = 30;

export interface FixedParameters {
  readonly parameters: TrackingParameters;
  readonly portionBytes: number;
  /** Describes the values that were changed. */
  readonly notes: readonly string[];
}

/** Adjusts parameters to each other, as the module does at its start. */
export function fixParameters(
  given: Partial<TrackingParameters>,
  portionBytes: number,
): FixedParameters {
  const wanted = { ...PARAMETER_DEFAULTS, ...given };
  const notes: string[] = [];
  const fix = (name: string, value: number, fixed: number): number => {
    if (fixed !== value) notes.push(`${name} is ${fixed} instead of ${value}`);
    return fixed;
  };
  const trackingBlockMaximumShift = fix(
    "tracking_block_maximum_shift",
    wanted.trackingBlockMaximumShift,
    Math.max(wanted.trackingBlockMaximumShift, wanted.trackingBlockMinimumShift),
  );
  const chunkMinimumShift = fix(
    "chunk_minimum_shift",
    wanted.chunkMinimumShift,
    Math.max(wanted.chunkMinimumShift, PAGE_SHIFT),
  );
  const chunkMaximumShift = fix(
    "chunk_maximum_shift",
    wanted.chunkMaximumShift,
    Math.max(wanted.chunkMaximumShift, chunkMinimumShift),
  );
  const chunkMaximumCountShift = fix(
    "chunk_maximum_count_shift",
    wanted.chunkMaximumCountShift,
    Math.min(wanted.chunkMaximumCountShift, CHUNK_COUNT_SHIFT_MAX),
  );
  const chunkBytes = 2 ** chunkMinimumShift;
  const wholeChunks = Math.max(2, Math.floor(portionBytes / chunkBytes)) * chunkBytes;
  const parameters = {
    ...wanted,
    trackingBlockMaximumShift,
    chunkMinimumShift,
    chunkMaximumShift,
    chunkMaximumCountShift,
  };
  const portion = fix("diff_storage_minimum", portionBytes, wholeChunks);
  return { parameters, portionBytes: portion, notes };
}

interface DeviceSize {
  readonly capacityBytes: number;
  readonly logicalBlockBytes: number;
}

/**
 * log2 of the blocks in which old data is copied: a page or a logical block; more if a snapshot's map would otherwise
 * exceed its limit.
 */
export function blockShiftOf(device: DeviceSize, chunkShift: number): number {
  return fittingBlockShift(device, chunkShift) ?? leastBlockShift(device);
}

function leastBlockShift({ logicalBlockBytes }: DeviceSize): number {
  return Math.max(BLOCK_SHIFT_DEFAULT, Math.log2(logicalBlockBytes));
}

/** Undefined if no map for such chunks is small enough. */
function fittingBlockShift(device: DeviceSize, chunkShift: number): number | undefined {
  const { capacityBytes } = device;
  const most = Math.min(BLOCK_SHIFT_MAX, chunkShift);
  for (let blockShift = leastBlockShift(device); blockShift <= most; blockShift++) {
    if (DiffAreaMap.fits({ capacityBytes, chunkShift, blockShift })) return blockShift;
  }
  return undefined;
}

/**
 * log2 of a device's chunks: at least its smallest efficient I/O, and large enough to limit their number and to fit
 * into a map; never below a block.
 */
export function chunkShiftOf(
  device: DeviceSize & { ioMinBytes: number },
  parameters: TrackingParameters,
): number {
  const { chunkMinimumShift, chunkMaximumShift, chunkMaximumCountShift } = parameters;
  const countMax = 2 ** Math.min(chunkMaximumCountShift, MAP_COUNT_SHIFT_MAX);
  let shift = chunkMinimumShift;
  while (shift < chunkMaximumShift && 2 ** shift < device.ioMinBytes) shift++;
  while (shift < chunkMaximumShift && Math.ceil(device.capacityBytes / 2 ** shift) > countMax) {
    shift++;
  }
  while (shift < chunkMaximumShift && fittingBlockShift(device, shift) === undefined) shift++;
  return Math.max(shift, leastBlockShift(device));
}
