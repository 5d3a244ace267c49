/** Tables without borders: text left-aligned, figures right-aligned. */

export interface Column<Row> {
  readonly title: string;
  readonly align?: "left" | "right";
  readonly value: (row: Row) => string;
}

export interface TableOptions<Row> {
  /** A longer first cell has its own line, so that it does not widen the column. */
  readonly firstWidthMax?: number;
  /** Lines below a row, indented. */
  readonly details?: (row: Row) => readonly string[];
}

/** One line per row, after a line of titles, each ended by a newline. */
export function formatTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  { firstWidthMax = Number.POSITIVE_INFINITY, details = () => [] }: TableOptions<Row> = {},
): string {
  const cells = rows.map((row) => columns.map((column) => column.value(row)));
  const fits = (cell: string, index: number) => index > 0 || cell.length <= firstWidthMax;
  const widths = columns.map((column, index) =>
    cells.reduce(
      (width, { [index]: cell = "" }) => (fits(cell, index) ? Math.max(width, cell.length) : width),
      column.title.length,
    ),
  );
  function line(values: readonly string[]): string {
    const padded = values.map((value, index) =>
      columns[index]!.align === "right"
        ? value.padStart(widths[index]!)
        : value.padEnd(widths[index]!),
    );
    return `${padded.join("  ").trimEnd()}\n`;
  }
  const below = (text: string) => `  ${text}\n`;
  const body = cells.map((values, at) => {
    const first = values[0]!;
    const text = fits(first, 0) ? line(values) : `${first}\n${line(["", ...values.slice(1)])}`;
    return text + details(rows[at]!).map(below).join("");
  });
  return line(columns.map((column) => column.title)) + body.join("");
}
