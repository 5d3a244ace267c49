import fc from "fast-check";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { BODY_DEPTH_MAX, parseJsonBody } from "../dist/json-body.js";
import { formatMetrics } from "../dist/prometheus-text.js";
import { coerceQuery } from "../dist/request-check.js";

test("bodies up to the depth limit are parsed as JSON.parse does", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
      const text = JSON.stringify(value);
      assert.equal(parseJsonBody(text), JSON.parse(text));
    }),
  );
  const deep = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
  assert.ok(Array.isArray(parseJsonBody(deep(BODY_DEPTH_MAX))));
  assert.throws(() => parseJsonBody(deep(BODY_DEPTH_MAX + 1)), /nested/);
});

test("brackets in strings do not nest, and any text gives a value or a named error", () => {
  const text = JSON.stringify(["[".repeat(100), '\\"[[[[[[[[[[[[[[[[[[[[']);
  assert.equal(parseJsonBody(text), JSON.parse(text));
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('"', "\\", "[", "]", "{", "}", "1", ",") }),
      (t) => {
        try {
          parseJsonBody(t);
        } catch (error) {
          assert.is((error as { code: string }).code, "REQUEST_INVALID");
        }
      },
    ),
  );
});

test("queries become numbers only where the schema says so and the text is plain digits", () => {
  const schema = { properties: { n: { type: "integer" }, s: { type: "string" } } };
  const query = { n: "12", s: "12", x: "12" };
  coerceQuery(query, schema);
  assert.equal(query, { n: 12, s: "12", x: "12" });
  for (const text of ["", "-1", "1.0", "0x1", " 1", "1e3"]) {
    const odd = { n: text };
    coerceQuery(odd, schema);
    assert.equal(odd, { n: text });
  }
});

test("metrics escape characters that could break a line", () => {
  const text = formatMetrics([
    {
      name: "a_total",
      help: "one\ntwo \\",
      type: "counter",
      samples: [
        { labels: { device: 'x"\\\n', queue: 1 }, value: 1.5 },
        { suffix: "_bucket", labels: { le: "+Inf" }, value: Number.POSITIVE_INFINITY },
      ],
    },
    { name: "empty", help: "", type: "gauge", samples: [] },
  ]);
  assert.is(
    text,
    "# HELP a_total one\\ntwo \\\\\n# TYPE a_total counter\n" +
      'a_total{device="x\\"\\\\\\n",queue="1"} 1.5\na_total_bucket{le="+Inf"} +Inf\n',
  );
});

test.run();
