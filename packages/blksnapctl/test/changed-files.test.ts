import { test } from "uvu";
import * as assert from "uvu/assert";
import { FileMatcher } from "../dist/changed-files.js";

/** Output of filefrag of e2fsprogs 1.47. */
const PRINTED = `Filesystem type is: ef53
File size of ./a is 12288 (3 blocks of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..       1:         10..        11:      2:
   1:        2..       2:         40..        40:      1:         12: last,eof
./a: 2 extents found
File size of ./dir/with space is 4096 (1 block of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..       0:         12..        12:      1:             last,eof
./dir/with space: 1 extent found
File size of ./small is 6 (1 block of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..    4095:          8..      4103:   4096:             last,not_aligned,inline,eof
./small: 1 extent found
File size of ./elsewhere is 4096 (1 block of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..       0:        100..       100:      1:             last,eof
`;

function matched(...blocks: [first: number, count: number][]) {
  const ranges = blocks.map(([first, count]) => ({
    offset_bytes: first * 4096,
    length_bytes: count * 4096,
  }));
  const matcher = new FileMatcher(ranges);
  for (const line of PRINTED.split("\n")) matcher.line(line);
  const { files, outside_files_bytes } = matcher.result;
  const found = files.map(({ path, changed_bytes }) => [path, changed_bytes / 4096]);
  return [found, outside_files_bytes / 4096];
}

test("files are named by the extents that they share with changed ranges", () => {
  assert.equal(matched(), [[], 0]);
  assert.equal(matched([0, 8]), [[], 8]);
  assert.equal(matched([11, 2]), [
    [
      ["/a", 1],
      ["/dir/with space", 1],
    ],
    0,
  ]);
  assert.equal(matched([0, 11], [11, 1], [40, 60]), [[["/a", 3]], 69]);
  assert.equal(matched([12, 1], [101, 1]), [[["/dir/with space", 1]], 1]);
  assert.equal(matched([0, 200]), [
    [
      ["/a", 3],
      ["/dir/with space", 1],
      ["/elsewhere", 1],
    ],
    195,
  ]);
});

test.run();
