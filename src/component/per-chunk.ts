import { Observable, type OperatorFunction } from "rxjs";
import { Chunk } from "../message/chunk.ts";
import type { Flowing } from "./operator.ts";

/**
 * An operator that works through each chunk in place with a plain loop and passes on those in which something
 * still travels. Controls and batches pass untouched: use it only where nothing is kept back.
 */
export function perChunk(step: (chunk: Chunk) => void): OperatorFunction<Flowing, Flowing> {
  return (source) =>
    new Observable((subscriber) =>
      source.subscribe({
        next(item) {
          if (item instanceof Chunk) {
            step(item);
            if (item.live === 0) return;
          }
          subscriber.next(item);
        },
        error: (error) => subscriber.error(error),
        complete: () => subscriber.complete(),
      }),
    );
}
