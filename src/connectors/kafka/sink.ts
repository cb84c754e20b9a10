import type { Context, Time, Timer } from "../../component/context.ts";
import type { Failure } from "../../component/failure.ts";
import { milliseconds } from "../../component/options.ts";
import { RecentErrors } from "../../component/recent-errors.ts";
import type { Refusal, SinkSession, SinkStatus } from "../../component/sink.ts";
import { MillraceError, messageOf } from "../../errors.ts";
import type { Batch, Destination } from "../../message/batch.ts";
import type { Chunk } from "../../message/chunk.ts";
import { Outcome } from "../../message/outcome.ts";
import {
  DriverError,
  type EncodedBatch,
  type KafkaClient,
  type Producer,
  type TopicPartition,
} from "./driver.ts";
import { explained, missingTopic } from "./errors.ts";
import { openPersistently } from "./opening.ts";
import { type KafkaSinkOptions, metadataAge } from "./options.ts";
import { type Growth, GrowthWatch } from "./partition-growth.ts";
import { crc32Partition, murmur2Partition } from "./partitioner.ts";

/** A limit below this would refuse nearly everything: the topic is misconfigured, not the messages. */
const absurdLimit = 16 * 1024;

/** Entries [from, to) of a batch, on their way to one partition. */
interface Piece {
  readonly batch: Batch;
  readonly from: number;
  readonly to: number;
  readonly write: Write;
  encoded: EncodedBatch | undefined;
  /** When it was given to the sink. */
  readonly at: Time;
  /** Since the broker first found it invalid: what it said, and how many batches the sink had written by then. */
  suspicion: { readonly reason: string; readonly since: number } | undefined;
}

function invalidRecord({ suspicion }: Piece): Failure {
  const said = suspicion?.reason ?? "invalid";
  return {
    class: "business",
    code: "record-refused",
    message: `the broker refuses it and takes others: ${said}`,
  };
}

/** One call of `write`: done when all of its pieces are. */
interface Write {
  open: number;
  readonly refusals: Refusal[];
  readonly resolve: (refusals: readonly Refusal[]) => void;
}

class PartitionQueue implements Destination, TopicPartition {
  readonly topic: string;
  readonly partition: number;
  readonly name: string;
  /** Written in this order; the first is the one being sent. */
  readonly pieces: Piece[] = [];
  /** Single messages found invalid, which go before `pieces` unless something else is taken first. */
  readonly suspects: Piece[] = [];
  sending = false;
  retry: Timer | undefined;
  /** Since the last success. */
  failures = 0;

  constructor(topic: string, partition: number) {
    this.topic = topic;
    this.partition = partition;
    this.name = `${topic}/${partition}`;
  }
}

/**
 * Writes to one topic. Each partition has its own queue with at most one batch outstanding, retries included,
 * so order in a partition is the order of `write` whatever fails. A batch whose outcome is unknown is sent
 * again, the same bytes. What the broker's answer does not name counts as unknown.
 *
 * A refusal for size is blamed on a message only when it alone exceeds both the limit read at the start and
 * the limit read again now; until then the topic is taken to be sick: the batch waits and status says why.
 */
export async function openKafkaSink(
  context: Context,
  client: KafkaClient,
  address: string,
  options: KafkaSinkOptions,
): Promise<SinkSession> {
  return openPersistently(context, client, address, "kafka sink", async () => {
    const description = (await client.describe([options.topic])).get(options.topic);
    if (description === undefined) throw missingTopic(options.topic, address);
    const producer = await client.producer();
    return new KafkaSinkSession(
      context,
      client,
      producer,
      options,
      description.partitions,
      description.maxMessageBytes,
    );
  });
}

class KafkaSinkSession implements SinkSession {
  readonly bytesOnly = true;
  readonly #context: Context;
  readonly #client: KafkaClient;
  readonly #producer: Producer;
  readonly #topic: string;
  readonly #queues: PartitionQueue[];
  readonly #growth: GrowthWatch;
  #note: string | undefined;
  /** Why nothing more is taken. */
  #failure: MillraceError | undefined;
  readonly #partitionOf: (key: Buffer, partitions: number) => number;
  readonly #limitAtOpen: number;
  readonly #maxBackoff: number;
  readonly #giveUpAfter: number;
  readonly #errors = new RecentErrors();
  #limit: number;
  /** Batches that were acknowledged. */
  #written = 0;
  #scheduled = false;
  #trouble: string | undefined;
  #closed = false;
  #rotation = 0;
  #rotatedFor: Chunk | undefined;

  constructor(
    context: Context,
    client: KafkaClient,
    producer: Producer,
    options: KafkaSinkOptions,
    partitions: number,
    limit: number,
  ) {
    this.#context = context;
    this.#client = client;
    this.#producer = producer;
    this.#topic = options.topic;
    this.#queues = Array.from(
      { length: partitions },
      (_, partition) => new PartitionQueue(options.topic, partition),
    );
    this.#partitionOf = options.partitioner === "crc32" ? crc32Partition : murmur2Partition;
    this.#growth = new GrowthWatch(
      context,
      client,
      new Map([[options.topic, partitions]]),
      metadataAge(options),
      (growth) => this.#grown(growth, options.onPartitionGrowth ?? "keep"),
    );
    this.#limitAtOpen = limit;
    this.#limit = limit;
    this.#maxBackoff = milliseconds(options.maxBackoff, 5_000);
    this.#giveUpAfter = milliseconds(options.giveUpAfter, Number.POSITIVE_INFINITY);
  }

  /** The key's partition. Messages without a key go together, chunk by chunk to the next partition. */
  destinationOf(chunk: Chunk, index: number): Destination {
    if (chunk.keyLength(index) >= 0) {
      const { keys } = chunk;
      const partitions = this.#queues.length;
      const partition =
        keys === undefined
          ? this.#partitionOf(chunk.key(index)!, partitions)
          : keys.hashed(index, this.#partitionOf, partitions);
      return this.#queues[partition]!;
    }
    if (this.#rotatedFor !== chunk) {
      this.#rotatedFor = chunk;
      this.#rotation = (this.#rotation + 1) % this.#queues.length;
    }
    return this.#queues[this.#rotation]!;
  }

  write(batch: Batch): Promise<readonly Refusal[]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (batch.length === 0) return Promise.resolve([]);
    return new Promise((resolve) => {
      const queue = batch.destination as PartitionQueue;
      const write: Write = { open: 1, refusals: [], resolve };
      queue.pieces.push({
        batch,
        from: 0,
        to: batch.length,
        write,
        encoded: undefined,
        at: this.#context.clock.now(),
        suspicion: undefined,
      });
      this.#schedule();
    });
  }

  async close(deadline: Time): Promise<void> {
    this.#closed = true;
    this.#growth.stop();
    for (const queue of this.#queues) queue.retry?.cancel();
    await this.#producer.close(deadline);
    await this.#client.close(deadline);
  }

  status(): SinkStatus {
    const reason = this.#failure?.message ?? this.#trouble;
    return {
      ready: reason === undefined,
      ...(reason === undefined ? {} : { reason }),
      ...(this.#note === undefined ? {} : { notes: [this.#note] }),
      lastErrors: this.#errors.list,
    };
  }

  /** Keys that are on their way stay on it, whatever is decided for those to come. */
  #grown({ topic, before, now }: Growth, policy: NonNullable<KafkaSinkOptions["onPartitionGrowth"]>): void {
    const { logger, node } = this.#context;
    const grown = `topic "${topic}" has ${now} partitions instead of ${before}`;
    if (policy === "fail") {
      this.#failure = new MillraceError("gave-up", `${node}: ${grown}, and keys would go elsewhere`, {
        remedy: 'start again, or set onPartitionGrowth: "keep" or "accept"',
      });
      logger.error({ node, topic, before, now }, this.#failure.message);
      return;
    }
    if (policy === "accept") {
      for (let partition = this.#queues.length; partition < now; partition++) {
        this.#queues.push(new PartitionQueue(topic, partition));
      }
      this.#note = `${grown}: keys go to all of them, and one that moved has its order from here on only`;
    } else {
      this.#note = `${grown}: keys stay in the first ${this.#queues.length} until the next start`;
    }
    logger.warn({ node, topic, before, now }, this.#note);
  }

  /** Batches written in one turn of the event loop go out together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#context.clock.defer(() => {
      this.#scheduled = false;
      this.#send();
    });
  }

  #send(): void {
    if (this.#closed || this.#context.signal.aborted) return;
    const together: PartitionQueue[] = [];
    for (const queue of this.#queues) {
      const piece = queue.pieces[0];
      if (queue.sending || piece === undefined) continue;
      queue.sending = true;
      // A batch that may be refused for its size, or that failed before, is sent by itself, so that a refusal
      // names it and nobody else's batch is written twice.
      if (queue.failures > 0 || this.#mayExceed(piece)) this.#attempt([queue]);
      else together.push(queue);
    }
    if (together.length > 0) this.#attempt(together);
  }

  #mayExceed(piece: Piece): boolean {
    const perRecord = 64;
    return piece.batch.bytes + piece.batch.length * perRecord + 128 > this.#limit;
  }

  /** One attempt for the first piece of each queue; decides for each queue what happens next. */
  async #attempt(queues: readonly PartitionQueue[]): Promise<void> {
    const failed = new Map<PartitionQueue, DriverError>();
    const offsets = new Map<PartitionQueue, number | undefined>();
    const sent: { queue: PartitionQueue; encoded: EncodedBatch }[] = [];
    try {
      if (this.#limit < absurdLimit) await this.#readLimit();
      for (const queue of queues) {
        const piece = queue.pieces[0]!;
        piece.encoded ??= await this.#producer.encode(queue, piece.batch, piece.from, piece.to);
        const encoded = piece.encoded;
        if (this.#limit < absurdLimit) {
          failed.set(
            queue,
            new DriverError("retry", `topic "${this.#topic}" takes batches of at most ${this.#limit} bytes`),
          );
        } else if (encoded.exact && encoded.size > this.#limit) {
          failed.set(
            queue,
            new DriverError(
              "too-large",
              `a batch of ${encoded.size} bytes exceeds the topic's limit of ${this.#limit}`,
            ),
          );
        } else {
          sent.push({ queue, encoded });
        }
      }
      if (sent.length > 0) {
        const results = await this.#producer.send(sent.map(({ encoded }) => encoded));
        const answered = new Map(results.map((result) => [`${result.topic}/${result.partition}`, result]));
        for (const { queue } of sent) {
          const result = answered.get(queue.name);
          if (result === undefined)
            failed.set(queue, new DriverError("retry", `the answer does not cover ${queue.name}`));
          else if (result.error !== undefined) failed.set(queue, result.error);
          else offsets.set(queue, result.offset);
        }
      }
    } catch (error) {
      const unknown =
        error instanceof DriverError ? error : new DriverError("retry", messageOf(error), error);
      for (const queue of queues) if (!failed.has(queue)) failed.set(queue, unknown);
    }
    for (const queue of queues) {
      const error = failed.get(queue);
      if (error === undefined) this.#succeeded(queue, offsets.get(queue));
      else await this.#failedOn(queue, error, queues.length > 1);
    }
  }

  #succeeded(queue: PartitionQueue, offset: number | undefined): void {
    const piece = queue.pieces.shift()!;
    if (offset !== undefined) piece.batch.storedAt(offset, piece.to - piece.from);
    queue.failures = 0;
    queue.sending = false;
    this.#written++;
    // The topic takes messages, only not these.
    for (const suspect of queue.suspects.splice(0)) this.#refuse(suspect, invalidRecord(suspect));
    if (this.#trouble !== undefined && this.#queues.every((other) => other.failures === 0)) {
      this.#trouble = undefined;
      this.#context.logger.info({ node: this.#context.node }, "kafka sink is well again");
    }
    if (queue.pieces.length > 0) this.#schedule();
    for (let entry = piece.from; entry < piece.to; entry++) piece.batch.settle(entry, Outcome.delivered);
    this.#close(piece);
  }

  async #failedOn(queue: PartitionQueue, error: DriverError, inCompany: boolean): Promise<void> {
    queue.failures++;
    if (error.code === "too-large" && !inCompany) {
      try {
        if (await this.#tooLarge(queue)) return;
      } catch (unread) {
        this.#tell(`${queue.name}: ${messageOf(unread)}`);
      }
    }
    if (error.code === "invalid" && !inCompany && this.#invalid(queue, error)) return;
    this.#tell(`${queue.name}: ${explained(messageOf(error))}`);
    this.#giveUpOld(queue);
    const wait = Math.min(this.#maxBackoff, 50 * 2 ** Math.min(queue.failures - 1, 20));
    // A failure in company says nothing of whose it was: each is tried again at once, by itself.
    this.#retryAfter(queue, inCompany && error.code !== "retry" ? 0 : this.#context.random.next() * wait);
  }

  #retryAfter(queue: PartitionQueue, wait: number): void {
    queue.retry = this.#context.clock.after(wait, () => {
      queue.retry = undefined;
      queue.sending = false;
      this.#send();
    });
  }

  /** Best effort: what could not be written for too long is lost, and counted as that. It may have been stored. */
  #giveUpOld(queue: PartitionQueue): void {
    const now = this.#context.clock.now();
    for (;;) {
      const [piece] = queue.pieces;
      if (piece === undefined || now - piece.at < this.#giveUpAfter) return;
      queue.pieces.shift();
      for (let entry = piece.from; entry < piece.to; entry++) piece.batch.settle(entry, Outcome.lost);
      this.#close(piece);
    }
  }

  /** Splits a batch refused for its size, or refuses a message that is too large by itself. False: hold it. */
  async #tooLarge(queue: PartitionQueue): Promise<boolean> {
    const piece = queue.pieces[0]!;
    await this.#readLimit();
    // Whatever it was at the start, a topic that takes next to nothing is sick.
    if (this.#limit < absurdLimit) return false;
    const size = piece.encoded?.size ?? 0;
    if (piece.to - piece.from === 1) {
      if (size <= this.#limit || size <= this.#limitAtOpen) return false;
      this.#refuseFirst(queue, {
        class: "business",
        code: "record-too-large",
        message: `the message takes ${size} bytes as encoded, and topic "${this.#topic}" takes at most ${Math.max(this.#limit, this.#limitAtOpen)}`,
      });
      return true;
    }
    this.#split(queue, piece);
    return true;
  }

  /**
   * A record that the broker finds invalid is found by halving. It is the message's own fault only if the topic
   * takes others: so it is set aside, and what comes after it tried. When one of those is taken, it is refused;
   * when there is nothing left to try, it is the topic that is sick, and all is tried again in order, later.
   * False: hold it.
   */
  #invalid(queue: PartitionQueue, error: DriverError): boolean {
    const piece = queue.pieces[0]!;
    if (piece.to - piece.from > 1) {
      this.#split(queue, piece);
      return true;
    }
    piece.suspicion ??= { reason: messageOf(error), since: this.#written };
    if (this.#written > piece.suspicion.since) {
      this.#refuseFirst(queue, invalidRecord(piece));
      return true;
    }
    if (queue.failures < 3) return false;
    if (queue.pieces.length === 1) {
      queue.pieces.unshift(...queue.suspects.splice(0));
      return false;
    }
    queue.suspects.push(queue.pieces.shift()!);
    this.#retryAfter(queue, 0);
    return true;
  }

  #split(queue: PartitionQueue, piece: Piece): void {
    const middle = (piece.from + piece.to) >> 1;
    piece.write.open++;
    queue.pieces.splice(
      0,
      1,
      { ...piece, to: middle, encoded: undefined },
      { ...piece, from: middle, encoded: undefined },
    );
    this.#context.meter.count("batches_split_total");
    this.#retryAfter(queue, 0);
  }

  #refuseFirst(queue: PartitionQueue, failure: Failure): void {
    this.#refuse(queue.pieces.shift()!, failure);
    queue.failures = 0;
    this.#retryAfter(queue, 0);
  }

  #refuse(piece: Piece, failure: Failure): void {
    piece.write.refusals.push({ entry: piece.from, failure });
    this.#close(piece);
  }

  #close(piece: Piece): void {
    if (--piece.write.open === 0) piece.write.resolve(piece.write.refusals);
  }

  async #readLimit(): Promise<void> {
    const description = (await this.#client.describe([this.#topic])).get(this.#topic);
    if (description === undefined) throw new DriverError("unknown-topic", `topic "${this.#topic}" is gone`);
    this.#limit = description.maxMessageBytes;
  }

  #tell(message: string): void {
    if (this.#trouble === undefined) {
      this.#context.logger.warn(
        { node: this.#context.node, error: message },
        "kafka sink is in trouble, retrying",
      );
    }
    this.#trouble = message;
    this.#errors.add(message, this.#context.clock.wall());
    this.#context.meter.count("write_retries_total");
  }
}
