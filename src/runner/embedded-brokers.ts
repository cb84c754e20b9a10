import type { EmbeddedBroker, EmbeddedBrokers } from "../component/embedded.ts";

/**
 * The in-process brokers of one process, one for each kind and address: topologies that name the same broker
 * meet on it, as they would on a real one.
 */
export class RunEmbeddedBrokers implements EmbeddedBrokers {
  readonly #brokers = new Map<
    string,
    { readonly kind: string; readonly address: string; readonly broker: EmbeddedBroker }
  >();

  /** A kind always makes brokers of one class, which is what lets its connector name the type. */
  of<B extends EmbeddedBroker>(kind: string, address: string, create: () => B): B {
    const id = JSON.stringify([kind, address]);
    let entry = this.#brokers.get(id);
    if (entry === undefined) {
      entry = { kind, address, broker: create() };
      this.#brokers.set(id, entry);
    }
    return entry.broker as B;
  }

  all(): readonly { readonly kind: string; readonly address: string; readonly broker: EmbeddedBroker }[] {
    return [...this.#brokers.values()];
  }
}
