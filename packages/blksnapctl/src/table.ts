/** Tables without borders: text to the left, figures to the right. */

export interface Column<Row> {
  readonly title: string;
  readonly align?: "left" | "right";
  readonly value: (row: Row) => string;
}

/** One line per row, under a line of titles, each ended by a newline. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map((column) => column.value(row)));
  const widths = columns.map((column, index) =>
    cells.reduce((width, line) => Math.max(width, line[index]!.length), column.title.length),
  );
  function line(values: readonly string[]): string {
    const padded = values.map((value, index) =>
      columns[index]!.align === "right"
        ? value.padStart(widths[index]!)
        : value.padEnd(widths[index]!),
    );
    return `${padded.join("  ").trimEnd()}\n`;
  }
  return line(columns.map((column) => column.title)) + cells.map(line).join("");
}
