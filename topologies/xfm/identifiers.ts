import { type Context, MillraceError } from "millrace";
import { messaging } from "./brokers.ts";
import type { Lake } from "./lake.ts";
import type { Pond } from "./pond.ts";
import { parseRange, type Range } from "./range.ts";

/**
 * Sees to it that a pond has identifiers to give out, and that no other pond ever gets the same.
 *
 * Ranges come from the queue `pond-seq`, and a message of a queue can come twice: when its taker is killed before the
 * acknowledgement has arrived, and when a return of ranges is repeated. So the lake notes whose a range is, before its
 * message is acknowledged. After a crash the pond finds there what it had taken; whoever is given the message again finds
 * that the range is taken, and passes it over.
 */
export class Identifiers {
  readonly #context: Context;
  readonly #pond: Pond;
  readonly #lake: Lake;

  constructor(context: Context, pond: Pond, lake: Lake) {
    this.#context = context;
    this.#pond = pond;
    this.#lake = lake;
  }

  /** Adds what the lake has noted for the pond and a crash kept from it. */
  async recover(): Promise<void> {
    for (const range of await this.#lake.rangesOf(this.#pond.id)) await this.#pond.add(range);
  }

  /** Takes ranges until the pond can give out `count` identifiers. Class network while the queue is empty. */
  async ensure(count: number): Promise<void> {
    while ((await this.#pond.identifiersLeft()) < count) {
      const taken = await messaging.take(this.#context, "pond-seq", async (content) => {
        const range = parseRange(content);
        return { range, isOurs: await this.#lake.claim(range, this.#pond.id) };
      });
      if (taken === undefined) {
        throw new MillraceError("connection-lost", "the queue pond-seq is empty: install further ranges");
      }
      const { range, isOurs } = taken;
      const { first, last } = range;
      const { logger, node } = this.#context;
      if (isOurs) await this.#pond.add(range);
      logger.info({ node, first, last }, isOurs ? "took a range" : "passed over a range that is taken");
    }
  }
}

/**
 * Closes the pond for good and returns what it did not give out. After a crash it is called again: the lake takes the
 * rest of a range from the pond before it is published, so one that is published twice still finds one taker.
 */
export async function returnUnused(
  pond: Pond,
  lake: Lake,
  publish: (range: Range) => Promise<void>,
): Promise<readonly Range[]> {
  const returned: Range[] = [];
  for (const { first, last, next } of await pond.closeForGood()) {
    const rest = { first: next, last };
    await lake.release({ first, last }, next, pond.id);
    await publish(rest);
    await pond.forget({ first, last });
    returned.push(rest);
  }
  return returned;
}
