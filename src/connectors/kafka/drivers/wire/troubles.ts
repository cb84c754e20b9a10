import type { DriverError } from "../../driver.ts";

/** How many failures in a row make a trouble: a leader that moves costs one or two. */
const tolerated = 2;

/**
 * The troubles of one subscription, told as one. Each part of it (membership, the loop of a broker, …) counts its
 * failures by itself; all is well when every part is.
 */
export class Troubles {
  readonly #tell: (error: DriverError | undefined, fatal: boolean) => void;
  readonly #failures = new Map<string, number>();
  #told = new Set<string>();

  constructor(tell: (error: DriverError | undefined, fatal: boolean) => void) {
    this.#tell = tell;
  }

  failed(part: string, error: DriverError): void {
    const failures = (this.#failures.get(part) ?? 0) + 1;
    this.#failures.set(part, failures);
    if (failures <= tolerated && error.code === "retry") return;
    this.#told.add(part);
    this.#tell(error, error.code === "unsupported");
  }

  well(part: string): void {
    if (!this.#failures.delete(part) || !this.#told.delete(part)) return;
    if (this.#told.size === 0) this.#tell(undefined, false);
  }
}
