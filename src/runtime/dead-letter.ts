import { createHash } from "node:crypto";
import type { Context } from "../component/context.ts";
import type { Failure } from "../component/failure.ts";
import type { SinkSession } from "../component/sink.ts";
import { MillraceError } from "../errors.ts";
import { Batch, type Destination } from "../message/batch.ts";
import { Chunk } from "../message/chunk.ts";
import { Lane, type Ledger } from "../message/lane.ts";
import { Outcome } from "../message/outcome.ts";
import { type Headers, type PlainRecord, PlainRecords, sizeOf } from "../message/records.ts";

/** A message on its way to the dead letters. */
interface Rejected {
  readonly chunk: Chunk;
  readonly index: number;
  readonly failure: Failure;
  readonly node: string;
  /** The broker keeps the message after its acknowledgement, so that a stub that names it loses nothing. */
  readonly kept: boolean;
}

/** Between two log lines about rejections of one node with one code, ms. */
const tellEvery = 60_000;
/** What a dead letter is refused for that a smaller one would not be. */
const unfit = new Set<string>(["record-too-large", "record-refused"]);
/** A stub takes the message's key and headers along up to this size together. */
const stubBytes = 8 * 1_024;
/** AMQP has room for 255 bytes of a header's name. */
const longestName = 255;
/** Most dead letters in one write. */
const together = 200;

/** Messages of the run itself have no upstream: nobody is told of their outcome but their batch. */
const noLedger: Ledger = { taken() {}, settled() {}, branched() {} };

/**
 * A chunk of messages that the run makes itself (dead letters, audit events), so that they go through the same
 * sink sessions as any others.
 */
export function ownChunk(source: string, records: readonly PlainRecord[]): Chunk {
  const lane = new Lane({
    origin: { source, target: source },
    epoch: 0,
    ack: "cumulative",
    ledger: noLedger,
  });
  const plain = new PlainRecords(records);
  return new Chunk(lane, lane, lane.take(plain, 0, plain.length), plain.length, plain, 0);
}

/**
 * Writes rejected messages to the topology's dead letters: the original bytes, key and headers, with headers
 * that say what was wrong and where it came from. A message settles `deadLettered` when that write is
 * acknowledged, and not before. What gathers while a write is out goes together; nothing waits for a window.
 *
 * A dead letter that is itself refused for its size becomes a stub without the value where the broker keeps
 * the original (a Kafka topic does); where an acknowledgement destroys it (a queue) the run stops instead.
 */
export class DeadLetters {
  readonly #context: Context;
  readonly #session: SinkSession | undefined;
  readonly #fail: (error: Error) => void;
  readonly #queues = new Map<Destination, Rejected[]>();
  readonly #writing = new Set<Destination>();
  readonly #told = new Map<string, { at: number; since: number }>();
  #open = 0;

  /** @param session undefined when the topology declares no dead letters: the first rejection then stops the run. */
  constructor(context: Context, session: SinkSession | undefined, fail: (error: Error) => void) {
    this.#context = context;
    this.#session = session;
    this.#fail = fail;
  }

  /** Rejected and not yet acknowledged. */
  get open(): number {
    return this.#open;
  }

  reject(node: string, kept: boolean, chunk: Chunk, index: number, failure: Failure): void {
    if (chunk.lane.ended) {
      chunk.takeOut(index);
      return;
    }
    chunk.takeOut(index);
    const rejected: Rejected = { chunk, index, failure, node, kept };
    if (this.#session === undefined) {
      this.#fail(
        new MillraceError(
          "dead-letter-impossible",
          `${describe(rejected)} and the topology has no dead letters`,
          {
            remedy: "declare t.deadLetters(sink), or mend the message; it was not acknowledged",
          },
        ),
      );
      return;
    }
    this.#open++;
    this.#tell(rejected);
    this.#enqueue(rejected, false);
  }

  /** One line for each kind of rejection, and at most one a minute after that. Never the reason: it may quote the message. */
  #tell({ chunk, index, failure, node }: Rejected): void {
    const { clock, logger, meter } = this.#context;
    meter.count(failure.class === "application" ? "author_errors_total" : "rejected_total");
    const kind = `${node}\n${failure.code}`;
    const now = clock.now();
    const told = this.#told.get(kind);
    if (told !== undefined && now - told.at < tellEvery) {
      told.since++;
      return;
    }
    this.#told.set(kind, { at: now, since: 0 });
    logger[failure.class === "application" ? "warn" : "info"](
      {
        node,
        code: failure.code,
        message: `${chunk.lane.name} position ${chunk.position(index)}`,
        ...(told === undefined ? {} : { sinceLast: told.since + 1 }),
      },
      failure.class === "application"
        ? "the topology's own code fails on a message; its dead letter says why"
        : "a message is rejected; its dead letter says why",
    );
  }

  #enqueue(rejected: Rejected, stub: boolean): void {
    const letter = ownChunk("dead letters", [letterOf(rejected, stub, this.#context.clock.wall())]);
    const destination = this.#session!.destinationOf(letter, 0);
    if (stub) {
      this.#write(destination, [rejected], true);
      return;
    }
    const queue = this.#queues.get(destination);
    if (queue === undefined) this.#queues.set(destination, [rejected]);
    else queue.push(rejected);
    if (!this.#writing.has(destination)) {
      this.#writing.add(destination);
      this.#context.clock.defer(() => this.#next(destination));
    }
  }

  #next(destination: Destination): void {
    const queue = this.#queues.get(destination);
    if (queue === undefined || queue.length === 0) {
      this.#queues.delete(destination);
      this.#writing.delete(destination);
      return;
    }
    this.#write(destination, queue.splice(0, together), false).then(() => this.#next(destination));
  }

  async #write(destination: Destination, rejected: readonly Rejected[], stub: boolean): Promise<void> {
    const now = this.#context.clock.wall();
    const chunk = ownChunk(
      "dead letters",
      rejected.map((one) => letterOf(one, stub, now)),
    );
    const batch = new Batch(destination, this.#context.clock.now());
    for (let i = 0; i < chunk.length; i++) batch.add(chunk, i);
    try {
      const refused = new Map(
        (await this.#session!.write(batch)).map((refusal) => [refusal.entry, refusal.failure]),
      );
      rejected.forEach((one, entry) => {
        const failure = refused.get(entry);
        if (failure === undefined) {
          this.#open--;
          one.chunk.settle(one.index, Outcome.deadLettered);
        } else if (unfit.has(failure.code) && !stub && one.kept) {
          this.#enqueue(one, true);
        } else {
          this.#fail(
            new MillraceError(
              "dead-letter-impossible",
              `${describe(one)} and its dead letter is refused: ${failure.message}`,
              {
                remedy: "raise the size limit of the dead letters' target; the message was not acknowledged",
              },
            ),
          );
        }
      });
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }
}

function describe({ chunk, index, failure, node }: Rejected): string {
  return `${node} rejects the message at ${chunk.lane.name} position ${chunk.position(index)} (${failure.code}: ${failure.message})`;
}

function letterOf({ chunk, index, failure, node }: Rejected, stub: boolean, now: number): PlainRecord {
  const record = chunk.from + index;
  const { source, target, partition } = chunk.lane.origin;
  const value = chunk.records.value(record);
  const given = chunk.records.headers(record);
  const key = chunk.records.key(record);
  // What was refused for its size may owe it to these as well.
  const bare =
    stub && (sizeOf(key, null, given) > stubBytes || given.some(([name]) => name.length > longestName));
  const headers: [string, Headers[number][1]][] = [
    ...(bare ? [] : given).map(([name, content]): [string, Headers[number][1]] => [name, content]),
    ["millrace-error-class", failure.class],
    ["millrace-error-code", failure.code],
    ["millrace-error-message", failure.message],
    ["millrace-error-node", node],
    ["millrace-error-source", source],
    ["millrace-error-target", target],
    ["millrace-error-position", String(chunk.records.position(record))],
    ["millrace-error-time", new Date(now).toISOString()],
    ["millrace-error-timestamp", String(chunk.records.timestamp(record))],
  ];
  if (failure.path !== undefined) headers.push(["millrace-error-path", failure.path]);
  if (partition !== undefined) headers.push(["millrace-error-partition", String(partition)]);
  if (bare) headers.push(["millrace-error-key-and-headers", "omitted"]);
  if (stub) {
    headers.push(
      ["millrace-error-value", "omitted"],
      ["millrace-error-value-size", String(value?.length ?? 0)],
      [
        "millrace-error-value-sha256",
        createHash("sha256")
          .update(value ?? "")
          .digest("hex"),
      ],
    );
  }
  return {
    position: 0,
    key: bare ? null : key,
    value: stub ? null : value,
    headers,
    // Not the message's own: a topic refuses one that lies too far ahead, and throws an old one away at once.
    timestamp: now,
  };
}
