/** Lines and counts from the records that the guests' runners leave in files. */
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

/** The counts of all VMs, and the lines of their tests as they come: each names its file. */
export class Report {
  passed = 0;
  failed = 0;
  skipped = 0;
  #startedAt = performance.now();

  pass(line) {
    this.passed++;
    console.log(`✓ ${line}`);
  }

  fail(line) {
    this.failed++;
    console.log(`✗ ${line}`);
  }

  skip(line) {
    this.skipped++;
    console.log(`- ${line}`);
  }

  skipFiles(names) {
    for (const name of names) this.skip(`${name}: not run`);
  }

  printSummary() {
    console.log(`took ${seconds(performance.now() - this.#startedAt)}`);
    console.log(`${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
  }
}

/** What one VM reports, from its boot to its end. */
export class VmReport {
  #report;
  #path;
  #mark;
  #isAlone;
  #read = 0;
  #timer;
  #output = "";
  /** Its files, by name: tests that began and did not end yet, and the outcome. */
  #files = new Map();

  /**
   * Prints the records as they come.
   *
   * @param {Report} report
   * @param {{path: string, kernel?: string, isAlone: boolean}} options path: of the records; isAlone:
   *   no other VM runs beside it, so that what it writes can be shown at once
   */
  constructor(report, { path, kernel, isAlone }) {
    this.#report = report;
    this.#path = path;
    this.#mark = kernel === undefined ? "" : ` on ${kernel}`;
    this.#isAlone = isAlone;
    this.#timer = setInterval(() => this.#poll(), POLL_MS);
  }

  /** What the VM's runner writes about failures; kept together when several VMs write. */
  write(chunk) {
    if (this.#isAlone) process.stdout.write(chunk);
    else this.#output += chunk;
  }

  #flush() {
    if (this.#output !== "") process.stdout.write(this.#output);
    this.#output = "";
  }

  end() {
    clearInterval(this.#timer);
    this.#poll();
    this.#flush();
  }

  /**
   * Ends a run whose VM the emulator has broken: unfinished files do not count, unless one of their tests had failed
   * already.
   *
   * @param {string[]} names
   * @returns {string[]} the names of those to restart
   */
  takeBackUnended(names) {
    this.end();
    const again = [];
    for (const name of names) {
      const file = this.#files.get(name);
      if (file?.ended) continue;
      if (file?.failed > 0) this.#failUnended(name, file);
      else {
        this.#report.passed -= file?.passed ?? 0;
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
  finish(names, death) {
    this.end();
    if (death !== undefined) this.#showDeath(death);
    if (this.#files.size === 0) this.#report.fail("the VM did not come to its first file");
    for (const name of names) {
      const file = this.#files.get(name);
      if (file === undefined) this.#report.skipFiles([`${name}${this.#mark}`]);
      else if (!file.ended) this.#failUnended(name, file);
    }
  }

  #failUnended(name, { open }) {
    this.#report.fail(`${[`${name}${this.#mark}`, ...open].join(": ")}: did not end`);
  }

  #showDeath({ why, console: text, output }) {
    const running = [...this.#files].find(([, file]) => !file.ended);
    const [name, file] = running ?? ["no file"];
    const where = [`${name}${this.#mark}`, ...(file?.open ?? [])].join(": ");
    console.log(`\n===== ${why} while this ran: ${where}`);
    if (running !== undefined) console.log(`----- ${name} wrote last\n${lastLines(output)}`);
    console.log(`----- console\n${lastLines(text)}\n=====\n`);
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
    for (const line of lines) if (line !== "") this.#add(JSON.parse(line));
  }

  #add(entry) {
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

  #takeTest({ file, test, status, why, ms }) {
    const state = this.#files.get(file);
    if (status === "started") {
      state.open.add(test);
      state.tests++;
      return;
    }
    state.open.delete(test);
    const line = `${file}${this.#mark}: ${test} (${seconds(ms)})`;
    if (status === "passed") {
      state.passed++;
      this.#report.pass(line);
    } else if (status === "skipped") {
      this.#report.skip(`${file}${this.#mark}: ${test}: SKIPPED, ${why}`);
    } else {
      state.failed++;
      this.#report.fail(line);
    }
  }

  #takeFile({ file, problem, ms, passed, total }) {
    // Records still in flight from the guest come with the next file, or at the end.
    this.#flush();
    const name = `${file}${this.#mark}`;
    const state = this.#files.get(file);
    state.ended = true;
    for (const test of state.open) this.#report.fail(`${name}: ${test}: did not end`);
    const failedAlready = state.failed + state.open.size;
    if (state.tests > 0) {
      // The daemon's start and its clean end belong to no test.
      if (problem !== "" && failedAlready === 0) this.#report.fail(`${name}: ${problem}`);
    } else if (problem !== "") this.#report.fail(`${name}: ${problem} (${seconds(ms)})`);
    else {
      this.#report.passed += passed - 1;
      this.#report.skipped += total - passed;
      this.#report.pass(`${name}: ${passed} tests (${seconds(ms)})`);
    }
  }
}
