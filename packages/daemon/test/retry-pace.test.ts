import { test } from "uvu";
import * as assert from "uvu/assert";
import { RetryPace } from "../dist/retry-pace.js";

test("each failure in a row doubles the wait, up to a bound; a success resets it", () => {
  const pace = new RetryPace(2, 10);
  const delays = () => Array.from({ length: 5 }, () => pace.failed("why").delayMs);
  assert.equal(delays(), [2, 4, 8, 10, 10]);
  pace.succeeded();
  assert.equal(delays(), [2, 4, 8, 10, 10]);
});

test("a reason is reported once, until it changes or an attempt succeeds", () => {
  const pace = new RetryPace(1, 9);
  const isNews = ["a", "a", "b", "b", "a"].map((why) => pace.failed(why).isNews);
  assert.equal(isNews, [true, false, true, false, true]);
  pace.succeeded();
  assert.is(pace.failed("a").isNews, true);
});

test.run();
