/** What is written on by {@link Terminal}: standard error, or a stand-in for it. */
export interface Screen {
  readonly columns?: number;
  write(text: string): unknown;
}

const clearLine = "\r\x1b[2K";

/**
 * A terminal with one line at the bottom that is rewritten in place and log lines that scroll above it.
 * Control characters in what is shown are replaced: a broker's error text must not move the cursor.
 */
export class Terminal {
  readonly #screen: Screen;
  #line = "";

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  /** Prints a line above the progress line. */
  print(line: string): void {
    const below = this.#line === "" ? "" : `${clearLine}`;
    this.#screen.write(`${below}${line}\n${this.#line}`);
  }

  /** Replaces the progress line; cut to the width of the terminal, since a wrapped line cannot be rewritten. */
  progress(line: string): void {
    // A terminal that was never told its size says 0.
    const width = (this.#screen.columns || 80) - 1;
    const fitting = printable(line).slice(0, Math.max(1, width));
    if (fitting === this.#line) return;
    this.#screen.write(`${clearLine}${fitting}`);
    this.#line = fitting;
  }

  /** Leaves the progress line where it is and goes below it. */
  finish(): void {
    if (this.#line === "") return;
    this.#line = "";
    this.#screen.write("\n");
  }
}

/** The text with control characters replaced by spaces. */
export function printable(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, " ");
}
