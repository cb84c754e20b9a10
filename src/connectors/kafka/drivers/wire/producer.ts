import type { Context } from "../../../../component/context.ts";
import type { Batch, Codec } from "../../../../message/batch.ts";
import {
  DriverError,
  type EncodedBatch,
  type ProduceResult,
  type Producer,
  type TopicPartition,
} from "../../driver.ts";
import type { Cluster } from "./cluster.ts";
import { driverError, ErrorCode, protocolError } from "./errors.ts";
import { type ProducedPartition, produceExchange } from "./produce-exchange.ts";
import { encodeRecordBatch, stampProducer } from "./record-batch/encode.ts";
import { initProducerIdRequest } from "./requests.ts";

/** An idempotent producer as the brokers know it. */
interface Identity {
  readonly id: bigint;
  readonly epoch: number;
}

/** What the broker expects next of one partition. */
interface Sequence {
  readonly identity: Identity;
  next: number;
  /** Sent under `next`, with an unknown outcome: nothing else may take that number. */
  pending: WireBatch | undefined;
  /** Nothing more may be sent under this identity. */
  spent: boolean;
}

class WireBatch implements EncodedBatch {
  readonly topic: string;
  readonly partition: number;
  readonly count: number;
  readonly codec: Codec;
  readonly exact = true;
  readonly bytes: Buffer;
  /** Set from the first sending until the outcome is known: a resend is the same bytes. */
  stamp: { readonly identity: Identity; readonly sequence: number } | undefined;
  /** Under this stamp. After more than one, a refusal does not tell what became of the earlier ones. */
  sendings = 0;

  constructor({ topic, partition }: TopicPartition, bytes: Buffer, count: number, codec: Codec) {
    this.topic = topic;
    this.partition = partition;
    this.bytes = bytes;
    this.count = count;
    this.codec = codec;
  }

  get size(): number {
    return this.bytes.length;
  }
}

/** The broker has lost or refuses the producer's state; what was sent under it was not stored by that request. */
const identityLost = new Set<number>([
  ErrorCode.outOfOrderSequence,
  ErrorCode.unknownProducer,
  ErrorCode.invalidProducerEpoch,
  ErrorCode.invalidProducerIdMapping,
]);

/** Refusals of the batch itself: it is not tried again as it is, and its number is free for the next. */
const refused = new Set(["too-large", "invalid", "unsupported"]);

/**
 * Sends record batches as an idempotent producer: each carries the producer's identity and a sequence number of
 * its partition, by which the broker knows a resend and stores it once. One batch of a partition is out at a
 * time (the sink sees to that).
 *
 * A batch keeps its number for as long as its outcome is unknown. A number is never given to a second batch while
 * the first may have been stored under it: the broker would take the second for a resend, and drop it. Where that
 * could be, and where a broker has lost the producer's state or refuses it, the partition gets a new identity and
 * begins at 0: a batch sent again under it may be stored twice, and never not at all.
 */
export class WireProducer implements Producer {
  readonly #cluster: Cluster;
  readonly #context: Context;
  readonly #requestTimeout: number;
  readonly #sequences = new Map<string, Sequence>();
  /** For partitions that have none yet. */
  #identity: Promise<Identity> | undefined;

  constructor(cluster: Cluster, context: Context, requestTimeout: number) {
    this.#cluster = cluster;
    this.#context = context;
    this.#requestTimeout = requestTimeout;
  }

  /** Takes an identity; rejects where that cannot be done. */
  async open(): Promise<void> {
    await this.#identify();
  }

  encode(
    partition: TopicPartition,
    batch: Batch,
    from: number,
    to: number,
  ): EncodedBatch | Promise<EncodedBatch> {
    const { clock, work } = this.#context;
    const { codec } = batch;
    const bytes = encodeRecordBatch(batch, from, to, { codec, now: clock.wall(), work });
    return bytes instanceof Promise
      ? bytes.then((done) => new WireBatch(partition, done, to - from, codec))
      : new WireBatch(partition, bytes, to - from, codec);
  }

  async send(batches: readonly EncodedBatch[]): Promise<readonly ProduceResult[]> {
    const wired = batches as readonly WireBatch[];
    await this.#cluster.learn([...new Set(wired.map(({ topic }) => topic))]);
    for (const batch of wired) {
      const sequence = this.#sequences.get(keyOf(batch));
      if (sequence === undefined) continue;
      if (!sequence.spent && (sequence.pending === undefined || sequence.pending === batch)) continue;
      this.#sequences.delete(keyOf(batch));
      this.#identity = undefined;
    }
    const identity = await this.#identify();
    const results: ProduceResult[] = [];
    const byNode = new Map<number, WireBatch[]>();
    for (const batch of wired) {
      const leader = this.#cluster.leader(batch);
      if (leader === undefined || leader.node < 0) {
        results.push(this.#without(batch, leader === undefined));
        continue;
      }
      this.#stamp(batch, identity);
      const list = byNode.get(leader.node);
      if (list === undefined) byNode.set(leader.node, [batch]);
      else list.push(batch);
    }
    await Promise.all(
      [...byNode].map(async ([node, list]) => {
        results.push(...(await this.#sendTo(node, list)));
      }),
    );
    return results;
  }

  async close(): Promise<void> {
    this.#sequences.clear();
  }

  /** One request to one broker, with everything it leads. */
  async #sendTo(node: number, batches: readonly WireBatch[]): Promise<ProduceResult[]> {
    try {
      const { connections } = this.#cluster;
      const connection = connections.ready(node, "produce") ?? (await connections.to(node, "produce"));
      // The leader gives up on its replicas before we give up on the leader.
      const timeout = Math.max(1, this.#requestTimeout - 1_000);
      const answer = await connection.exchange(produceExchange(batches, timeout), 0);
      const sent = new Map(batches.map((batch) => [keyOf(batch), batch]));
      return answer.partitions.flatMap((part) => {
        const batch = sent.get(keyOf(part));
        return batch === undefined ? [] : [this.#resultOf(batch, part)];
      });
    } catch (error) {
      // Whether they were stored is unknown: they keep their sequence numbers.
      const failure = driverError(error);
      return batches.map((batch) => {
        this.#cluster.suspect(batch.topic);
        return { topic: batch.topic, partition: batch.partition, offset: undefined, error: failure };
      });
    }
  }

  #resultOf(batch: WireBatch, part: ProducedPartition): ProduceResult {
    const { topic, partition } = batch;
    if (part.error === 0 || part.error === ErrorCode.duplicateSequence) {
      this.#stored(batch);
      return { topic, partition, offset: part.offset < 0 ? undefined : part.offset, error: undefined };
    }
    const error = protocolError(part.error, keyOf(batch), part.detail)!;
    if (identityLost.has(part.error) || (refused.has(error.code) && batch.sendings > 1)) {
      this.#spend(batch);
    } else if (refused.has(error.code)) {
      this.#free(batch);
    } else {
      this.#cluster.suspect(topic);
    }
    return { topic, partition, offset: undefined, error };
  }

  #stamp(batch: WireBatch, identity: Identity): void {
    const key = keyOf(batch);
    let sequence = this.#sequences.get(key);
    if (sequence === undefined) {
      sequence = { identity, next: 0, pending: undefined, spent: false };
      this.#sequences.set(key, sequence);
    }
    sequence.pending = batch;
    batch.sendings++;
    // The same bytes again, unless the partition has got a new identity since.
    if (batch.stamp?.identity === sequence.identity) return;
    batch.stamp = { identity: sequence.identity, sequence: sequence.next };
    batch.sendings = 1;
    stampProducer(batch.bytes, sequence.identity.id, sequence.identity.epoch, sequence.next);
  }

  #stored(batch: WireBatch): void {
    const { stamp } = batch;
    const sequence = this.#free(batch);
    if (sequence === undefined || stamp === undefined) return;
    sequence.next = (stamp.sequence + batch.count) % 2 ** 31;
  }

  /** The outcome is known: sent once more, it would be a batch like any other. */
  #free(batch: WireBatch): Sequence | undefined {
    const sequence = this.#sequences.get(keyOf(batch));
    const { stamp } = batch;
    batch.stamp = undefined;
    if (sequence === undefined || stamp?.identity !== sequence.identity) return undefined;
    sequence.pending = undefined;
    return sequence;
  }

  #spend(batch: WireBatch): void {
    const sequence = this.#free(batch);
    if (sequence === undefined) return;
    sequence.spent = true;
    this.#context.meter.count("producer_identities_spent_total");
  }

  #without(batch: WireBatch, unknown: boolean): ProduceResult {
    const { topic, partition } = batch;
    this.#cluster.suspect(topic);
    const missing = unknown && this.#cluster.topic(topic) === undefined;
    const error = missing
      ? new DriverError("unknown-topic", `topic "${topic}" does not exist`)
      : new DriverError("retry", `${topic}/${partition} has no leader at the moment`);
    return { topic, partition, offset: undefined, error };
  }

  #identify(): Promise<Identity> {
    if (this.#identity === undefined) {
      const asking = (async () => {
        const connection = await this.#cluster.connections.toAny("admin");
        const answer = await connection.ask(initProducerIdRequest, null, 60_000, undefined, undefined);
        return { id: answer.producerId, epoch: answer.producerEpoch };
      })();
      this.#identity = asking;
      asking.catch(() => {
        if (this.#identity === asking) this.#identity = undefined;
      });
    }
    return this.#identity;
  }
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}
