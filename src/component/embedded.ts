import type { PlainRecord } from "../message/records.ts";

/** A message of an embedded broker as `--dump` writes it. */
export interface StoredMessage extends PlainRecord {
  /** Kafka partition; 0 where the target has none. */
  readonly partition: number;
}

/** A message as `--feed` publishes it; what is left out the broker chooses as it would for any producer. */
export interface FedMessage {
  readonly value: Buffer | null;
  readonly key?: Buffer | null;
  readonly headers?: PlainRecord["headers"];
  readonly timestamp?: number;
  readonly partition?: number;
}

/** An in-process broker, as the runner sees it: something to publish into first and to look into at the end. */
export interface EmbeddedBroker {
  /** Topics or queues it holds, in name order. */
  targets(): readonly string[];
  /** Publishes into a topic or queue, creating it when it is not there. */
  feed(target: string, messages: readonly FedMessage[]): void;
  /** All that a topic holds, by partition and offset; for a queue all that was ever put into it. */
  contents(target: string): Iterable<StoredMessage>;
}

/** The embedded brokers of one run: one per kind and address, made at first use. */
export interface EmbeddedBrokers {
  of<B extends EmbeddedBroker>(kind: string, address: string, create: () => B): B;
  all(): readonly { readonly kind: string; readonly address: string; readonly broker: EmbeddedBroker }[];
}
