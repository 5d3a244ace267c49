import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import {
  daemonEventSchemas,
  daemonSchemas,
  ERRORS,
  eventSchemas,
  isErrorName,
  nbdSchemas,
  STORE_KIND_NAMES,
  STORE_KINDS,
  snapshotSchemas,
  socketPath,
  statusSchemas,
  store,
  storeKindByWord,
  trackerSchemas,
} from "@blksnap/api";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  fieldsWithoutUnit,
  numbersWithoutUnit,
  numericFields,
  WITHOUT_UNIT,
} from "../dist/testing/units.js";

interface Schema {
  readonly type?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

function visit(schema: Schema, path: string): void {
  if (schema.type === "object") {
    assert.is(schema.additionalProperties, false, path);
    for (const name of schema.required ?? []) assert.ok(schema.properties?.[name], path);
  }
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    assert.match(name, /^[a-z]+(_[a-z]+)*$/, path);
    visit(property, `${path}.${name}`);
  }
  if (schema.items !== undefined) visit(schema.items, `${path}[]`);
  for (const choice of schema.anyOf ?? []) visit(choice, `${path}|`);
}

// An API's headers may always have others beside them.
const { EVENTS, followEventsHeaders: _headers, ...namedEventSchemas } = eventSchemas;
const {
  DAEMON_EVENTS,
  SEVERITIES,
  daemonEventsHeaders: _,
  ...namedDaemonEventSchemas
} = daemonEventSchemas;
const schemas: readonly (readonly [name: string, schema: object])[] = [
  daemonSchemas,
  nbdSchemas,
  namedEventSchemas,
  namedDaemonEventSchemas,
  snapshotSchemas,
  statusSchemas,
  trackerSchemas,
].flatMap((group) => Object.entries(group));

test("no schema lets unknown fields in, and all keys are in snake case", () => {
  for (const [name, schema] of schemas) visit(schema as Schema, name);
});

test("each number is an integer, and its name says the unit, if it has one", () => {
  assert.equal(
    schemas.flatMap(([name, schema]) => fieldsWithoutUnit(schema, name)),
    [],
  );
  assert.not.match(JSON.stringify(schemas), /"number"/);
});

test("a number without a unit is found, in schemas and in documents", () => {
  const size = { type: ["integer", "null"] };
  const schema = { properties: { parts: { items: { properties: { size, size_bytes: size } } } } };
  assert.equal(fieldsWithoutUnit(schema, "x"), ["x.parts[].size"]);
  assert.equal(fieldsWithoutUnit({ anyOf: [schema, size] }, "x", "y"), ["x.parts[].size", "x"]);
  const document = { parts: [{ size: 1, size_bytes: 0.5, since: 1, name: "7" }, null], a: [2] };
  const found = ["x.parts[].size = 1", "x.parts[].size_bytes = 0.5", "x.a[] = 2"];
  assert.equal(numbersWithoutUnit(document, "x"), found);
});

test("each entry of the list of numbers without a unit exists", () => {
  const names = schemas.flatMap(([path, schema]) => numericFields(schema, path));
  const unused = WITHOUT_UNIT.filter((listed) => !names.some(({ name }) => name === listed));
  assert.equal(unused, []);
});

test("each error has a true errno, statuses, and advice on one line", () => {
  // Node's table of constants lacks these two.
  const numbers: Readonly<Record<string, number>> = {
    ...constants.errno,
    ENOTBLK: 15,
    ESHUTDOWN: 108,
  };
  for (const [name, entry] of Object.entries(ERRORS)) {
    assert.match(name, /^[A-Z]+(_[A-Z]+)*$/);
    if (entry.errno_name === null) assert.is(entry.errno, null, name);
    else assert.is(entry.errno, numbers[entry.errno_name], name);
    assert.ok(entry.http_status >= 400 && entry.http_status < 600, name);
    assert.match(entry.hint, /^[A-Z].{5,70}[^.]$/, name);
  }
});

test("each errno is that of the kernel module", () => {
  const expected = {
    NOT_ATTACHED: "ENOENT",
    DEVICE_NOT_FOUND: "ENOENT",
    DEVICE_BUSY: "EBUSY",
    OUT_OF_MEMORY: "ENOMEM",
    SNAPSHOT_NOT_FOUND: "ESRCH",
    SNAPSHOT_EMPTY: "ENODEV",
    SNAPSHOT_ALREADY_TAKEN: "EALREADY",
    SNAPSHOT_CORRUPTED: "EFAULT",
    DEVICE_ALREADY_IN_SNAPSHOT: "EALREADY",
    DEVICE_IN_OTHER_SNAPSHOT: "EBUSY",
    DEVICE_IN_SNAPSHOT: "EBUSY",
    CBT_CORRUPTED: "EFAULT",
    CBT_RANGE: "ENODATA",
    MARK_RANGE: "EINVAL",
    STORE_INVALID: "EINVAL",
  } as const;
  for (const [name, errno] of Object.entries(expected)) {
    assert.ok(isErrorName(name));
    assert.is(ERRORS[name].errno_name, errno, name);
  }
  assert.not(isErrorName("toString"));
  assert.not(isErrorName(7));
});

test("each kind of event has its own description, and is named in the guide", () => {
  const guide = readFileSync(join(import.meta.dirname, "../../../docs/guide.md"), "utf8");
  const kinds = EVENTS.map(({ properties }) => properties.event.const);
  assert.is(new Set(kinds).size, kinds.length);
  for (const { properties, description } of EVENTS) {
    assert.match(description, /^[A-Z].*\.$/);
    assert.ok(guide.includes(`\`${properties.event.const}\``), properties.event.const);
  }
});

test("each kind of daemon event has a description, and a line with its severity in the page on monitoring", () => {
  const text = readFileSync(join(import.meta.dirname, "../../../docs/monitoring.md"), "utf8");
  // The page has tables of other things, too.
  const hasSeverity = (line: string) => SEVERITIES.some((one) => line.split("|")[2]?.includes(one));
  const lines = text.split("\n").filter((line) => line.startsWith("| `") && hasSeverity(line));
  const kinds = DAEMON_EVENTS.map(({ properties }) => properties.event.const);
  assert.is(new Set(kinds).size, kinds.length);
  for (const { properties, description } of DAEMON_EVENTS) {
    const [kind, severity] = [properties.event.const, properties.severity.const];
    assert.match(description, /^[A-Z].*\.$/);
    assert.ok(SEVERITIES.includes(severity), kind);
    const its = lines.filter((line) => line.includes(`\`${kind}\``));
    assert.ok(its.length === 1 && its[0]?.includes(severity), kind);
  }
  const told = lines.flatMap((line) => line.split("|")[1]?.match(/[a-z_]+/g) ?? []);
  assert.equal([...told].sort(), [...kinds].sort());
});

test("each kind of store is in the schemas of requests and of status", () => {
  const { pattern, description } = store;
  const words = STORE_KIND_NAMES.filter((kind) => "word" in STORE_KINDS[kind]);
  assert.equal(words, ["memory"]);
  assert.equal(statusSchemas.storeStatus.properties.kind.enum, STORE_KIND_NAMES);
  for (const kind of STORE_KIND_NAMES) {
    const { describe, word }: { describe: string; word?: string } = STORE_KINDS[kind];
    assert.ok(description.includes(word ?? describe), kind);
    assert.is(storeKindByWord(word ?? "/dev/sda"), word === undefined ? undefined : kind);
    assert.ok(new RegExp(pattern).test(word ?? "/dev/sda"), kind);
  }
  assert.not.ok(new RegExp(pattern).test("memory"));
  assert.is(storeKindByWord("memory"), undefined);
});

test("the environment names the socket", () => {
  assert.is(socketPath({}), "/run/blksnap/blksnapd.sock");
  assert.is(socketPath({ BLKSNAP_SOCKET: "" }), "/run/blksnap/blksnapd.sock");
  assert.is(socketPath({ BLKSNAP_SOCKET: "/x" }), "/x");
});

test("the example of the README runs", () => {
  const example = join(import.meta.dirname, "../examples/errors.mjs");
  const out = execFileSync(process.execPath, [example], { encoding: "utf8" });
  assert.match(out, /^NOT_ATTACHED +ENOENT +Attach it first/m);
});

test.run();
