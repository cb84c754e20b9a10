import type { Backoff } from "../../component/backoff.ts";
import type { Failure } from "../../component/failure.ts";
import { messageOf } from "../../errors.ts";
import type { Destination } from "../../message/batch.ts";
import type { Chunk, Message } from "../../message/chunk.ts";
import type { RabbitmqSinkOptions } from "./options.ts";
import type { Write } from "./write.ts";

/** An exchange and a routing key, with what is to be published there, in order. */
export class Route implements Destination {
  readonly name: string;
  readonly exchange: string;
  readonly routingKey: string;
  /** The writes that are not done, in the order they came. */
  readonly writes: Write[] = [];
  /** No write before this index has anything to send. */
  cursor = 0;
  /** Sent and unconfirmed. */
  outstanding = 0;
  /** Most that may be outstanding: everything, or little after the broker has refused something. */
  window = Number.POSITIVE_INFINITY;
  /** Why nothing is sent for the time being. */
  held: string | undefined = undefined;
  backoff: Backoff | undefined = undefined;
  /** It waits for its turn to send. */
  queued = false;

  constructor(name: string, exchange: string, routingKey: string) {
    this.name = name;
    this.exchange = exchange;
    this.routingKey = routingKey;
  }
}

/**
 * The destinations of a sink: one object for each routing key, for as long as anyone holds it. Keys made from
 * messages may be without number, so that nothing is kept here by itself.
 */
export class Routes {
  /** Where messages go for which no routing key can be made: {@link Routes.failureOf} says why. */
  readonly nowhere = new Route("(no routing key)", "", "");
  readonly #exchange: string;
  readonly #make: ((message: Message) => string) | undefined;
  readonly #only: Route | undefined;
  readonly #routes = new Map<string, WeakRef<Route>>();
  readonly #forgotten = new FinalizationRegistry<string>((key) => {
    if (this.#routes.get(key)?.deref() === undefined) this.#routes.delete(key);
  });
  #latest: Route | undefined;

  constructor({ exchange = "", key = "", queue }: RabbitmqSinkOptions) {
    this.#exchange = exchange;
    if (queue !== undefined) this.#only = new Route(queue, "", queue);
    else if (typeof key === "string") this.#only = new Route(nameOf(exchange, key), exchange, key);
    else this.#make = key;
  }

  of(chunk: Chunk, index: number): Route {
    if (this.#only !== undefined) return this.#only;
    const key = this.#keyOf(chunk, index);
    return typeof key === "string" ? this.#route(key) : this.nowhere;
  }

  /** Why the message goes {@link nowhere}. The function is asked again: it is pure, and this is rare. */
  failureOf(chunk: Chunk, index: number): Failure {
    const key = this.#keyOf(chunk, index);
    if (typeof key !== "string") return key;
    return {
      class: "application",
      code: "author-error",
      message: 'the function "key" gives now this, now that',
    };
  }

  #keyOf(chunk: Chunk, index: number): string | Failure {
    let key: unknown;
    try {
      key = this.#make!(chunk.message(index));
    } catch (error) {
      return {
        class: "application",
        code: "author-error",
        message: `the function "key" failed: ${messageOf(error)}`,
      };
    }
    if (typeof key !== "string") {
      return {
        class: "application",
        code: "author-error",
        message: `the function "key" gave ${typeof key}, not text`,
      };
    }
    const length = Buffer.byteLength(key);
    if (length <= 255) return key;
    return {
      class: "business",
      code: "record-refused",
      message: `its routing key has ${length} bytes; AMQP allows 255`,
    };
  }

  #route(key: string): Route {
    // Most often the same again.
    if (this.#latest?.routingKey === key) return this.#latest;
    let route = this.#routes.get(key)?.deref();
    if (route === undefined) {
      route = new Route(nameOf(this.#exchange, key), this.#exchange, key);
      this.#routes.set(key, new WeakRef(route));
      this.#forgotten.register(route, key);
    }
    this.#latest = route;
    return route;
  }
}

function nameOf(exchange: string, key: string): string {
  return key === "" ? exchange : `${exchange}/${key}`;
}
