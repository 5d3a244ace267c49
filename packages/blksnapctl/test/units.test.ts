import { nearestName } from "@blksnap/api";
import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { scanArguments } from "../dist/argv.js";
import { globalOptions, verbs } from "../dist/catalog.js";
import { fillBar, glyphsFor, heatMap } from "../dist/pictures.js";
import { strerror } from "../dist/strerror.js";
import { formatTable } from "../dist/table.js";
import { commonUnit, formatBytes, formatMicroseconds, formatSeconds } from "../dist/units.js";
import { parseLimit, parseRange } from "../dist/values.js";

test("sizes are in powers of 1024, with or without iB, in any case", () => {
  const units = ["", "K", "M", "G", "T"];
  for (const [power, unit] of units.entries()) {
    const bytes = 600 * 1024 ** power;
    for (const text of [`600${unit}`, `600${unit.toLowerCase()}`, `600${unit}iB`]) {
      if (text !== "600iB") assert.is(parseLimit(text), bytes, text);
    }
  }
  assert.is(parseLimit("512B"), 512);
  assert.is(parseLimit(String(Number.MAX_SAFE_INTEGER)), Number.MAX_SAFE_INTEGER);
});

test("any text is a size in range or a LIMIT_INVALID", () => {
  const characters = fc.constantFrom("0", "1", "9", "K", "G", "i", "B", ".", "-", " ", "e", "\n");
  fc.assert(
    fc.property(fc.string({ unit: characters, maxLength: 20 }), (text) => {
      try {
        const bytes = parseLimit(text);
        assert.ok(Number.isSafeInteger(bytes) && bytes >= 512);
      } catch (error) {
        assert.is((error as { code: string }).code, "LIMIT_INVALID");
      }
    }),
  );
});

test("ranges beyond exact integers are refused", () => {
  assert.equal(parseRange("2048:8"), { offset_bytes: 1_048_576, length_bytes: 4096 });
  for (const text of ["", ":", "1:", ":1", "-1:1", "1:1:1", "1 :1", "9007199254740991:1"]) {
    assert.throws(() => parseRange(text), /Invalid format of range string/);
  }
});

test("options become full names with their values, whatever their spelling", () => {
  function scanned(...words: string[]) {
    const { verb, values, fault } = scanArguments(words, verbs, globalOptions);
    return fault?.message ?? [verb?.name, Object.fromEntries(values)];
  }
  assert.equal(scanned("attach", "--dev", "x"), ["attach", { device: ["x"] }]);
  assert.equal(scanned("attach", "--dev=x=y"), ["attach", { device: ["x=y"] }]);
  assert.equal(scanned("attach", "-dx", "-j"), ["attach", { device: ["x"], json: [""] }]);
  assert.equal(scanned("attach", "-jd=x"), ["attach", { device: ["x"], json: [""] }]);
  assert.equal(scanned("--so", "attach", "detach", "--d", "x"), [
    "detach",
    { socket: ["attach"], device: ["x"] },
  ]);
  const create = ["snapshot_create", "-f/a", "-", "-l", "-5", "--file=/b", "/c", "--", "-d"];
  assert.is(scanned(...create), "'-d' is an unexpected argument");
  assert.equal(scanned(...create.slice(0, -1)), [
    "snapshot_create",
    { file: ["/a", "-", "/b", "/c"], limit: ["-5"] },
  ]);
  assert.is(scanned("nonsense", "--dev"), "there is no option '--dev'");
  assert.is(scanned("attach", "-jxd"), "there is no option '-xd'");
  assert.is(scanned("attach", "--json=yes"), "option '--json' takes no value");
  assert.is(scanned("attach", "-j=yes"), "option '--json' takes no value");
  assert.is(scanned("attach", "--device", "--json"), "option '--device' has no value");
});

test("any arguments are parsed to the end", () => {
  const word = fc.oneof(
    fc.constantFrom(
      "attach",
      "diff",
      "snapshot_create",
      "-d",
      "-jb",
      "--",
      "-",
      "--file",
      "--=",
      "-=",
      "",
    ),
    fc.string({ maxLength: 5 }),
    fc.string({ maxLength: 5 }).map((text) => `-${text}`),
  );
  fc.assert(
    fc.property(fc.array(word), (words) => {
      const { values, fault } = scanArguments(words, verbs, globalOptions);
      assert.ok(fault === undefined || fault.code === "USAGE");
      for (const name of values.keys()) assert.match(name, /^[a-z-]+$/);
    }),
  );
});

test("the nearest name is within the distance of a likely typo", () => {
  const names = verbs.map(({ name }) => name);
  for (const name of names) {
    assert.is(nearestName(`${name}x`, names), name);
    // umount without its first letter is another verb.
    const slip = name.slice(1);
    assert.is(nearestName(slip, names), names.includes(slip) ? slip : name);
  }
  assert.is(nearestName("frobnicate", names), undefined);
});

test("the heat map darkens where data changed, and never hides a change", () => {
  const glyphs = glyphsFor({ LANG: "en_US.UTF-8" });
  assert.is(heatMap([{ offset: 0, length: 50 }], 100, 10, glyphs), "█████     ");
  assert.is(heatMap([{ offset: 0, length: 1 }], 100, 4, glyphsFor({ LC_ALL: "C" })), ".   ");
  const extent = fc.record({ offset: fc.nat(999), length: fc.integer({ min: 1, max: 200 }) });
  fc.assert(
    fc.property(fc.array(extent), fc.integer({ min: 1, max: 80 }), (extents, width) => {
      const map = heatMap(extents, 1000, width, glyphs);
      assert.is(map.length, width);
      for (const { offset } of extents) {
        assert.is.not(map[Math.floor((offset * width) / 1000)], " ");
      }
    }),
  );
});

test("human-readable figures", () => {
  assert.is(formatBytes(1023, false), "1023 B");
  assert.is(formatBytes(1536, false), "1.5 KiB");
  assert.is(formatBytes(2 ** 41, false), "2.0 TiB");
  assert.is(formatBytes(1536, true), "1536");
  assert.equal([0, 59, 61, 3600, 90_000].map(formatSeconds), [
    "0 s",
    "59 s",
    "1 min 1 s",
    "1 h",
    "1 d 1 h",
  ]);
  assert.equal([7, 1500, 2e6].map(formatMicroseconds), ["7 us", "1.5 ms", "2.0 s"]);
  assert.is(fillBar(0.5, 4, glyphsFor({ LC_ALL: "POSIX" })), "##--");
  assert.is(fillBar(7, 2, glyphsFor({ LANG: "de_DE.utf8" })), "██");
  assert.is(fillBar(7, 2, glyphsFor({})), "##");
  assert.equal(commonUnit([0, 4096, 2 ** 20]), { name: "KiB", bytes: 1024 });
  assert.is(commonUnit([513]).bytes, 1);
  assert.equal([28, 5, 22, 9999].map(strerror), [
    "No space left on device",
    "Input/output error",
    "Invalid argument",
    "Unknown error 9999",
  ]);
});

test("tables align text to the left and figures to the right, without trailing blanks", () => {
  const rows = [
    { name: "a", size: "10" },
    { name: "long", size: "9" },
  ];
  const table = formatTable(rows, [
    { title: "NAME", value: ({ name }) => name },
    { title: "SIZE", align: "right", value: ({ size }) => size },
    { title: "X", value: () => "" },
  ]);
  assert.is(table, "NAME  SIZE  X\na       10\nlong     9\n");
  const narrow = formatTable(
    rows,
    [
      { title: "N", value: ({ name }) => name },
      { title: "SIZE", align: "right", value: ({ size }) => size },
    ],
    { firstWidthMax: 3, details: ({ size }) => [`of ${size}`] },
  );
  assert.is(narrow, "N  SIZE\na    10\n  of 10\nlong\n      9\n  of 9\n");
});

test.run();
