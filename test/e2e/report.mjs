/** Lines and counts from the records that the guest's runner leaves in a file. */
import { readFileSync } from "node:fs";

const POLL_MS = 300;
/** Of the console and of a file's own output, when the VM did not come to the file's end. */
const LAST_LINES_SHOWN = 40;

function lastLines(text) {
  return text.trimEnd().split(/\r?\n/).slice(-LAST_LINES_SHOWN).join("\n");
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(1)} s`;
}

export class Report {
  passed = 0;
  failed = 0;
  skipped = 0;
  #path = "";
  #read = 0;
  #timer;
  /** Files of this group, by name: tests that began and did not end yet, and the outcome. */
  #files = new Map();
  #startedAt = performance.now();

  /** Prints the records of one run as they come. */
  follow(path) {
    this.#path = path;
    this.#read = 0;
    this.#files = new Map();
    this.#timer = setInterval(() => this.#poll(), POLL_MS);
  }

  unfollow() {
    clearInterval(this.#timer);
    this.#poll();
  }

  /**
   * Ends a run whose VM the emulator has broken: files that had not come to their end count for nothing, but where a test of
   * theirs had failed already.
   *
   * @param {string[]} names
   * @returns {string[]} the names of those that are to be begun again
   */
  takeBackUnended(names) {
    this.unfollow();
    const again = [];
    for (const name of names) {
      const file = this.#files.get(name);
      if (file?.ended) continue;
      if (file?.failed > 0) this.#fail(`${[name, ...file.open].join(": ")}: did not end`);
      else {
        this.passed -= file?.passed ?? 0;
        again.push(name);
      }
    }
    console.log(`! the emulator broke the VM (Oops: int3); begun again: ${again.join(", ")}`);
    return again;
  }

  /**
   * Ends the run; files that never came to their end count as failed or, when not begun, skipped.
   *
   * @param {string[]} names
   * @param {{why: string, console: string, output: string}} [death] of the VM
   */
  finishGroup(names, death) {
    this.unfollow();
    if (death !== undefined) this.#showDeath(death);
    if (this.#files.size === 0) this.#fail("the VM did not come to its first file");
    for (const name of names) {
      const file = this.#files.get(name);
      if (file === undefined) this.skipFiles([name]);
      else if (!file.ended) this.#fail(`${[name, ...file.open].join(": ")}: did not end`);
    }
  }

  #showDeath({ why, console: text, output }) {
    const running = [...this.#files].find(([, file]) => !file.ended);
    const [name, file] = running ?? ["no file"];
    const where = [name, ...(file?.open ?? [])].join(": ");
    console.log(`\n===== ${why} while this ran: ${where}`);
    if (running !== undefined) console.log(`----- ${name} wrote last\n${lastLines(output)}`);
    console.log(`----- console\n${lastLines(text)}\n=====\n`);
  }

  skipFiles(names) {
    for (const name of names) {
      console.log(`- ${name}: not run`);
      this.skipped++;
    }
  }

  printSummary() {
    console.log(`took ${seconds(performance.now() - this.#startedAt)}`);
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
  }

  #poll() {
    let text = "";
    try {
      text = readFileSync(this.#path, "utf8");
    } catch {
      return;
    }
    const end = text.lastIndexOf("\n") + 1;
    const lines = text.slice(this.#read, end).split("\n");
    this.#read = end;
    for (const line of lines) if (line !== "") this.#take(JSON.parse(line));
  }

  #take(entry) {
    if (entry.status === "note") console.log(`  ${entry.text}`);
    else if (entry.status === "progress") {
      if (process.env.E2E_PROGRESS) console.log(`  ${entry.text}`);
    } else if (entry.test !== undefined) this.#takeTest(entry);
    else if (entry.status === "started") {
      this.#files.set(entry.file, {
        open: new Set(),
        tests: 0,
        passed: 0,
        failed: 0,
        ended: false,
      });
    } else this.#takeFile(entry);
  }

  #takeTest({ file, test, status, ms }) {
    const state = this.#files.get(file);
    if (status === "started") {
      state.open.add(test);
      state.tests++;
      return;
    }
    state.open.delete(test);
    const line = `${file}: ${test} (${seconds(ms)})`;
    if (status === "passed") {
      state.passed++;
      this.#pass(line);
    } else {
      state.failed++;
      this.#fail(line);
    }
  }

  #takeFile({ file, problem, ms, passed, total }) {
    const state = this.#files.get(file);
    state.ended = true;
    for (const test of state.open) this.#fail(`${file}: ${test}: did not end`);
    const failedAlready = state.failed + state.open.size;
    if (state.tests > 0) {
      // The daemon's start and its clean end belong to no test.
      if (problem !== "" && failedAlready === 0) this.#fail(`${file}: ${problem}`);
    } else if (problem !== "") this.#fail(`${file}: ${problem} (${seconds(ms)})`);
    else {
      this.passed += passed - 1;
      this.skipped += total - passed;
      this.#pass(`${file}: ${passed} tests (${seconds(ms)})`);
    }
  }

  #pass(line) {
    this.passed++;
    console.log(`✓ ${line}`);
  }

  #fail(line) {
    this.failed++;
    console.log(`✗ ${line}`);
  }
}
