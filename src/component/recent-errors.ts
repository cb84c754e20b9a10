import { messageOf } from "../errors.ts";

/** Newest first, at most five: what status shows of the troubles of a source, a sink or a connection. */
export class RecentErrors {
  readonly #errors: { readonly message: string; readonly at: number }[] = [];

  /** @param at wall clock, ms. */
  add(error: unknown, at: number): void {
    this.#errors.unshift({ message: messageOf(error), at });
    this.#errors.length = Math.min(5, this.#errors.length);
  }

  get list(): readonly { readonly message: string; readonly at: number }[] {
    return [...this.#errors];
  }
}
