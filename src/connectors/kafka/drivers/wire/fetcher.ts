import { Backoff } from "../../../../component/backoff.ts";
import type { Context, Time, Timer } from "../../../../component/context.ts";
import type { Records } from "../../../../message/records.ts";
import type { DriverError, TopicPartition } from "../../driver.ts";
import type { Cluster } from "./cluster.ts";
import { driverError, ErrorCode, protocolError } from "./errors.ts";
import { type FetchAnswer, type FetchedPartition, fetchExchange } from "./fetch-exchange.ts";
import { committedOffsets, earliest, latest, listOffsets } from "./offsets.ts";
import { type DecodedRecords, decodeRecords } from "./record-batch/decode.ts";
import type { Troubles } from "./troubles.ts";

export interface FetchOptions {
  readonly group: string;
  readonly maxBytesPerPartition: number;
  /** ms */
  readonly maxWait: number;
}

/** Who is told what was read. */
export interface FetchListener {
  records(partition: TopicPartition, records: Records, next: number): void;
  passed(partition: TopicPartition, next: number): void;
  /** The log does not hold that offset: reading goes on at its beginning, whatever was read before. */
  outOfRange(partition: TopicPartition, offset: number): void;
  /** The topic was deleted, and one of the same name has been made. */
  remade(topic: string): void;
}

/** Most bytes of one fetch, all partitions of a broker together. */
const maxFetchBytes = 8 * 2 ** 20;

/** While a partition is paused, a fetch for the others waits no longer than that at first: it may be resumed soon. */
const shortestWait = 5;

/** One owned partition. */
interface Source extends TopicPartition {
  readonly topicId: string;
  /** Where reading goes on; undefined until the committed offset was asked for. */
  next: number | undefined;
  paused: boolean;
  /** Being given up: nothing more is delivered. */
  stopped: boolean;
  /** Grows for a batch that is larger than a fetch. */
  maxBytes: number;
  /** Failures in a row, and when it is tried again. */
  failures: number;
  retryAt: Time;
}

interface Wanted {
  readonly source: Source;
  readonly offset: number;
}

interface Fetched {
  readonly wanted: readonly Wanted[];
  readonly answer: FetchAnswer;
}

interface Decoded {
  readonly source: Source;
  readonly decoded: DecodedRecords;
}

/**
 * Reads the owned partitions: one loop for each broker that leads some, with one fetch out at a time. The next
 * fetch leaves before the records of the last one are handed over, so that the broker works while the pipeline
 * does; hence what is handed over after a pause is at most what one more fetch brings.
 *
 * Within a fetch the broker serves partitions in the order they are named, up to a limit; so that order rotates.
 */
export class Fetcher {
  readonly #cluster: Cluster;
  readonly #context: Context;
  readonly #options: FetchOptions;
  readonly #listener: FetchListener;
  readonly #troubles: Troubles;
  readonly #sources = new Map<string, Source>();
  readonly #loops = new Map<number, BrokerLoop>();
  #locating = false;
  #refreshing = false;
  #closed = false;

  constructor(
    cluster: Cluster,
    context: Context,
    options: FetchOptions,
    listener: FetchListener,
    troubles: Troubles,
  ) {
    this.#cluster = cluster;
    this.#context = context;
    this.#options = options;
    this.#listener = listener;
    this.#troubles = troubles;
  }

  /** From now on reads exactly these; those in `fresh` from the committed offset. */
  own(
    partitions: readonly (TopicPartition & { readonly topicId: string })[],
    fresh: ReadonlySet<string>,
  ): void {
    const owned = new Set(partitions.map(keyOf));
    for (const key of [...this.#sources.keys()]) if (!owned.has(key)) this.#sources.delete(key);
    for (const partition of partitions) {
      const key = keyOf(partition);
      if (this.#sources.has(key) && !fresh.has(key)) continue;
      this.#sources.set(key, {
        topic: partition.topic,
        partition: partition.partition,
        topicId: partition.topicId,
        next: undefined,
        paused: false,
        stopped: false,
        maxBytes: this.#options.maxBytesPerPartition,
        failures: 0,
        retryAt: 0,
      });
    }
    this.#locate();
  }

  /** Delivers no more of these, ever: they are about to be given up. */
  stop(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const source = this.#sources.get(keyOf(partition));
      if (source !== undefined) source.stopped = true;
    }
  }

  pause(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const source = this.#sources.get(keyOf(partition));
      if (source !== undefined) source.paused = true;
    }
  }

  resume(partitions: readonly TopicPartition[]): void {
    for (const partition of partitions) {
      const source = this.#sources.get(keyOf(partition));
      if (source !== undefined) source.paused = false;
    }
    this.reconsider();
  }

  close(): void {
    this.#closed = true;
    this.#sources.clear();
    for (const loop of this.#loops.values()) loop.close();
    this.#loops.clear();
  }

  /** Something may be wanted of another broker than before. */
  reconsider(): void {
    if (this.#closed) return;
    this.#lookForRemade();
    let leaderless = false;
    for (const source of this.#sources.values()) {
      const node = this.#nodeOf(source);
      if (node === undefined) leaderless = true;
      else if (!this.#loops.has(node)) this.#loops.set(node, new BrokerLoop(this, this.#context, node));
    }
    for (const loop of this.#loops.values()) loop.wake();
    if (leaderless) this.#refresh();
  }

  /** @internal What is to be asked of one broker next, and how long it may wait. */
  wantedOf(node: number, rotation: number, emptyFetches: number) {
    const now = this.#context.clock.now();
    const wanted: Wanted[] = [];
    let leftOut = false;
    let wakeAt: Time | undefined;
    for (const source of this.#sources.values()) {
      if (source.stopped || this.#nodeOf(source) !== node) continue;
      if (source.paused || source.next === undefined) leftOut = true;
      else if (source.retryAt > now) {
        wakeAt = Math.min(wakeAt ?? source.retryAt, source.retryAt);
      } else wanted.push({ source, offset: source.next });
    }
    const { maxWait } = this.#options;
    const patience = Math.min(
      leftOut ? Math.min(maxWait, shortestWait * 2 ** Math.min(emptyFetches, 20)) : maxWait,
      wakeAt === undefined ? maxWait : wakeAt - now,
    );
    const start = wanted.length === 0 ? 0 : rotation % wanted.length;
    return { wanted: [...wanted.slice(start), ...wanted.slice(0, start)], patience, wakeAt };
  }

  /** @internal The request leaves before this returns, where the connection is open. */
  async fetch(node: number, wanted: readonly Wanted[], patience: number): Promise<Fetched> {
    const { connections } = this.#cluster;
    const connection = connections.ready(node, "fetch") ?? (await connections.to(node, "fetch"));
    const maxWait = Math.max(0, Math.round(patience));
    const exchange = fetchExchange(
      wanted.map(({ source, offset }) => ({
        topicId: source.topicId,
        partition: source.partition,
        leaderEpoch: this.#cluster.leader(source)?.epoch ?? -1,
        offset,
        maxBytes: source.maxBytes,
      })),
      { maxWait, maxBytes: maxFetchBytes },
    );
    const answer = await connection.exchange(exchange, maxWait);
    const error = protocolError(answer.error, "fetch");
    if (error !== undefined) throw error;
    return { wanted, answer };
  }

  /** @internal Moves positions on and looks at errors; returns what is to be handed over. */
  async decode({ wanted, answer }: Fetched): Promise<readonly Decoded[]> {
    const asked = new Map(wanted.map((one) => [`${one.source.topicId}/${one.source.partition}`, one]));
    const results: Decoded[] = [];
    const pending: Promise<void>[] = [];
    for (const fetched of answer.partitions) {
      const one = asked.get(`${fetched.topicId}/${fetched.partition}`);
      if (one === undefined || !this.#current(one)) continue;
      if (fetched.error !== 0) {
        this.#refused(one.source, fetched);
        continue;
      }
      if (fetched.bytes.length === 0) {
        this.#succeeded(one.source);
        continue;
      }
      try {
        const decoded = decodeRecords(fetched.bytes, {
          topic: one.source.topic,
          partition: one.source.partition,
          from: one.offset,
          aborted: fetched.aborted,
          work: this.#context.work,
        });
        if (decoded instanceof Promise) {
          pending.push(
            decoded.then(
              (result) => this.#advance(one, result, results),
              (error) => this.#failed(one.source, driverError(error)),
            ),
          );
        } else this.#advance(one, decoded, results);
      } catch (error) {
        this.#failed(one.source, driverError(error));
      }
    }
    if (pending.length > 0) await Promise.all(pending);
    return results;
  }

  /** @internal */
  deliver(results: readonly Decoded[]): void {
    for (const { source, decoded } of results) {
      if (source.stopped || this.#sources.get(keyOf(source)) !== source) continue;
      if (decoded.records.length > 0) this.#listener.records(source, decoded.records, decoded.next);
      else this.#listener.passed(source, decoded.next);
    }
  }

  /** @internal A whole fetch failed. */
  lost(node: number, error: unknown): void {
    this.#troubles.failed(`broker ${node}`, driverError(error));
    for (const source of this.#sources.values()) {
      if (this.#nodeOf(source) === node) this.#cluster.suspect(source.topic);
    }
    this.#refresh();
  }

  /** @internal */
  answered(node: number): void {
    this.#troubles.well(`broker ${node}`);
  }

  #advance(one: Wanted, decoded: DecodedRecords, results: Decoded[]): void {
    if (!this.#current(one)) return;
    const { source } = one;
    this.#succeeded(source);
    if (decoded.next === one.offset) {
      // Not one whole batch came: it is larger than what was asked for.
      source.maxBytes = Math.max(source.maxBytes, decoded.incomplete);
      return;
    }
    source.maxBytes = this.#options.maxBytesPerPartition;
    source.next = decoded.next;
    results.push({ source, decoded });
  }

  /** It still reads on from where this was asked for. */
  #current({ source, offset }: Wanted): boolean {
    return !source.stopped && source.next === offset && this.#sources.get(keyOf(source)) === source;
  }

  #lookForRemade(): void {
    const remade = new Set<string>();
    for (const { topic, topicId } of this.#sources.values()) {
      const current = this.#cluster.topic(topic)?.id;
      if (current !== undefined && current !== topicId) remade.add(topic);
    }
    for (const topic of remade) this.#listener.remade(topic);
  }

  #nodeOf(source: Source): number | undefined {
    const node = this.#cluster.leader(source)?.node;
    return node === undefined || node < 0 ? undefined : node;
  }

  #succeeded(source: Source): void {
    if (source.failures === 0) return;
    source.failures = 0;
    this.#troubles.well(keyOf(source));
  }

  #failed(source: Source, error: DriverError): void {
    source.failures++;
    const wait = Math.min(5_000, 50 * 2 ** Math.min(source.failures - 1, 10));
    source.retryAt = this.#context.clock.now() + this.#context.random.next() * wait;
    this.#troubles.failed(keyOf(source), error);
  }

  #refused(source: Source, { error }: FetchedPartition): void {
    this.#failed(source, protocolError(error, keyOf(source))!);
    if (error === ErrorCode.offsetOutOfRange) this.#reposition(source);
    else {
      // Leader, epoch or topic id may be of the past; anything else does no harm to ask.
      this.#cluster.suspect(source.topic);
      this.#refresh();
    }
  }

  /** The position is not in the log: reading goes on at its beginning. */
  async #reposition(source: Source): Promise<void> {
    const { topic, partition } = source;
    const position = source.next;
    try {
      await this.#cluster.learn([topic]);
      const [first, end] = await Promise.all([
        listOffsets(this.#cluster, topic, [partition], earliest),
        listOffsets(this.#cluster, topic, [partition], latest),
      ]);
      const low = first.get(partition);
      const high = end.get(partition);
      if (low === undefined || high === undefined || position === undefined) return;
      if (this.#sources.get(keyOf(source)) !== source || source.stopped || source.next !== position) return;
      // A new leader may have been behind for a moment.
      if (position >= low && position <= high) return;
      source.next = low;
      source.retryAt = 0;
      this.#listener.outOfRange(source, position);
      this.reconsider();
    } catch (error) {
      this.#troubles.failed(keyOf(source), driverError(error));
    }
  }

  /** Finds out where to begin with partitions that are new, for as long as it takes. */
  async #locate(): Promise<void> {
    if (this.#locating) return;
    this.#locating = true;
    const backoff = new Backoff(this.#context, { initial: 50, max: 2_000 });
    while (!this.#closed) {
      const open = [...this.#sources.values()].filter(({ next }) => next === undefined);
      if (open.length === 0) break;
      try {
        await this.#cluster.learn([...new Set(open.map(({ topic }) => topic))]);
        const committed = new Map(
          (await committedOffsets(this.#cluster, this.#options.group, open)).map((one) => [
            keyOf(one),
            one.offset,
          ]),
        );
        const without = new Map<string, Source[]>();
        for (const source of open) {
          const offset = committed.get(keyOf(source));
          if (offset !== undefined) source.next = offset;
          else without.set(source.topic, [...(without.get(source.topic) ?? []), source]);
        }
        for (const [topic, sources] of without) {
          const partitions = sources.map(({ partition }) => partition);
          const offsets = await listOffsets(this.#cluster, topic, partitions, earliest);
          for (const source of sources) source.next = offsets.get(source.partition);
        }
        this.#troubles.well("committed offsets");
        this.reconsider();
      } catch (error) {
        if (this.#context.signal.aborted) break;
        this.#troubles.failed("committed offsets", driverError(error));
        await backoff.wait().catch(() => {});
      }
    }
    this.#locating = false;
  }

  /** Asks for the leaders again, until every owned partition has one. */
  async #refresh(): Promise<void> {
    if (this.#refreshing) return;
    this.#refreshing = true;
    const backoff = new Backoff(this.#context, { initial: 50, max: 1_000 });
    while (!this.#closed && !this.#context.signal.aborted && this.#sources.size > 0) {
      try {
        await backoff.wait();
        await this.#cluster.learn([...new Set([...this.#sources.values()].map(({ topic }) => topic))]);
        this.#troubles.well("metadata");
        const leaderless = [...this.#sources.values()].some((source) => this.#nodeOf(source) === undefined);
        if (!leaderless) break;
      } catch (error) {
        this.#troubles.failed("metadata", driverError(error));
      }
    }
    this.#refreshing = false;
    this.reconsider();
  }
}

/** The fetches of one broker, one after the other. */
class BrokerLoop {
  readonly #fetcher: Fetcher;
  readonly #context: Context;
  readonly #node: number;
  readonly #backoff: Backoff;
  #rotation = 0;
  /** Fetches in a row that brought nothing. */
  #empty = 0;
  #closed = false;
  #woken = false;
  #wake: (() => void) | undefined;
  #timer: Timer | undefined;

  constructor(fetcher: Fetcher, context: Context, node: number) {
    this.#fetcher = fetcher;
    this.#context = context;
    this.#node = node;
    this.#backoff = new Backoff(context, { initial: 50, max: 2_000 });
    this.#run().catch(() => {});
  }

  wake(): void {
    this.#empty = 0;
    this.#woken = true;
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.wake();
  }

  async #run(): Promise<void> {
    let next = this.#fetch();
    while (!this.#closed) {
      let fetched: Fetched | undefined;
      try {
        fetched = await next;
        if (fetched !== undefined) this.#backoff.reset();
      } catch (error) {
        if (this.#closed) return;
        this.#fetcher.lost(this.#node, error);
        await this.#backoff.wait();
        next = this.#fetch();
        continue;
      }
      if (fetched === undefined) {
        next = this.#fetch();
        continue;
      }
      this.#fetcher.answered(this.#node);
      const results = await this.#fetcher.decode(fetched);
      this.#empty = results.length > 0 ? 0 : this.#empty + 1;
      if (fetched.answer.throttle > 0) await this.#sleep(fetched.answer.throttle, false);
      if (this.#closed) return;
      next = this.#fetch();
      next.catch(() => {});
      this.#fetcher.deliver(results);
    }
  }

  /** One fetch; undefined when nothing was wanted, after a while in which something may have come to be. */
  async #fetch(): Promise<Fetched | undefined> {
    this.#woken = false;
    const { wanted, patience, wakeAt } = this.#fetcher.wantedOf(this.#node, this.#rotation++, this.#empty);
    if (wanted.length > 0) return this.#fetcher.fetch(this.#node, wanted, patience);
    await this.#sleep(wakeAt === undefined ? undefined : Math.max(1, patience), true);
    return undefined;
  }

  /** Waits so long, or until woken. */
  #sleep(delay: number | undefined, wakes: boolean): Promise<void> {
    if (this.#closed || (wakes && this.#woken)) return Promise.resolve();
    return new Promise((resolve) => {
      const end = () => {
        this.#timer?.cancel();
        this.#wake = undefined;
        resolve();
      };
      if (wakes || this.#closed) this.#wake = end;
      this.#timer = delay === undefined ? undefined : this.#context.clock.after(delay, end);
    });
  }
}

function keyOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}
