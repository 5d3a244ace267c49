/** Output for the user: numbered steps, commands with their output, progress. */

const SPINNER_INTERVAL_MS = 250;
const QUIET_AT_FIRST_MS = 1000;
/** Without a terminal, progress is a line now and then. */
const LINE_INTERVAL_MS = 5000;
const INDENT = "   ";

function isPlainLocale({ LC_ALL, LC_CTYPE, LANG }) {
  return ["C", "POSIX"].includes(LC_ALL || LC_CTYPE || LANG);
}

export class Screen {
  #out = process.stdout;
  #columns;
  #hasColours;
  #marks;
  #step = 0;
  #startMs = Date.now();
  #hasProgressLine = false;

  /** @param columns width of the terminal; 0 if there is none */
  constructor({ columns, environment }) {
    this.#columns = columns;
    this.#hasColours = columns > 0 && !environment.NO_COLOR && environment.TERM !== "dumb";
    this.#marks = isPlainLocale(environment)
      ? { good: "ok", bad: "FAILED", spin: ["-", "\\", "|", "/"], line: "-" }
      : { good: "✓", bad: "✗", spin: ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇"], line: "─" };
  }

  #paint(code, text) {
    return this.#hasColours ? `\x1b[${code}m${text}\x1b[0m` : text;
  }

  #print(text) {
    this.clearProgress();
    this.#out.write(`${text}\n`);
  }

  #seconds(sinceMs) {
    return `${((Date.now() - sinceMs) / 1000).toFixed(1)} s`;
  }

  step(title) {
    this.#step++;
    const elapsed = this.#paint(2, `(${this.#seconds(this.#startMs)})`);
    this.#print(`\n${this.#paint(1, `${this.#step}. ${title}`)} ${elapsed}`);
  }

  /** A line of explanation. */
  note(text) {
    this.#print(`${INDENT}${text}`);
  }

  command(line) {
    this.#print(`${INDENT}${this.#paint(36, `$ ${line}`)}`);
  }

  /** Output of a program. */
  output(text) {
    for (const line of text.trimEnd().split("\n")) {
      if (text.trim() !== "") this.#print(`${INDENT}  ${line}`);
    }
  }

  success(text) {
    this.#print(`${INDENT}${this.#paint(32, this.#marks.good)} ${text}`);
  }

  failure(text) {
    this.#print(`${INDENT}${this.#paint(31, `${this.#marks.bad} ${text}`)}`);
  }

  summary(title, rows) {
    const rule = this.#marks.line.repeat(64);
    const width = Math.max(...rows.map(([name]) => name.length));
    this.#print(`\n${rule}\n${this.#paint(1, title)} (${this.#seconds(this.#startMs)})`);
    for (const [name, value] of rows) this.#print(`  ${name.padEnd(width)}  ${value}`);
    this.#print(rule);
  }

  /**
   * Shows that work is in progress while it takes longer than a second.
   *
   * @param {string | (() => string)} text
   */
  async during(text, work) {
    const startMs = Date.now();
    const say = typeof text === "function" ? text : () => text;
    const isTerminal = this.#columns > 0;
    let frame = 0;
    const timer = setInterval(
      () => {
        if (Date.now() - startMs < QUIET_AT_FIRST_MS) return;
        const line = `${INDENT}... ${say()}, ${Math.round((Date.now() - startMs) / 1000)} s`;
        if (!isTerminal) return this.#print(line);
        const { spin } = this.#marks;
        const mark = spin[frame++ % spin.length];
        this.#out.write(`\r\x1b[2K${line.replace("...", mark).slice(0, this.#columns - 1)}`);
        this.#hasProgressLine = true;
      },
      isTerminal ? SPINNER_INTERVAL_MS : LINE_INTERVAL_MS,
    );
    try {
      return await work();
    } finally {
      clearInterval(timer);
      this.clearProgress();
    }
  }

  clearProgress() {
    if (!this.#hasProgressLine) return;
    this.#hasProgressLine = false;
    this.#out.write("\r\x1b[2K");
  }
}
