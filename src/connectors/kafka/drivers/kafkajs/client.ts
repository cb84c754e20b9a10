import kafkajs, {
  type Admin,
  type Kafka,
  type KafkaConfig,
  type Producer as KafkaJsProducer,
  type Message,
} from "kafkajs";
import type { Context, Time } from "../../../../component/context.ts";
import { reveal } from "../../../../component/secret.ts";
import type { Batch, Codec } from "../../../../message/batch.ts";
import type { HeaderValue } from "../../../../message/records.ts";
import {
  DriverError,
  type EncodedBatch,
  type KafkaClient,
  type NewTopic,
  type PartitionOffsets,
  type ProduceResult,
  type Producer,
  type SubscribeOptions,
  type Subscription,
  type SubscriptionListener,
  type TopicDescription,
  type TopicPartition,
} from "../../driver.ts";
import { currentToken, type KafkaSasl, type KafkaSettings } from "../../options.ts";
import { within } from "../within.ts";
import { registerCodecs } from "./codecs.ts";
import { creationError, driverError, isTimeout } from "./errors.ts";
import { openSocket, seedBroker } from "./sockets.ts";
import { subscribe } from "./subscription.ts";

const { Kafka: KafkaClass, logLevel, CompressionTypes, ConfigResourceTypes } = kafkajs;

function login(sasl: KafkaSasl): NonNullable<KafkaConfig["sasl"]> {
  if (sasl.mechanism === "oauthbearer") {
    return {
      mechanism: sasl.mechanism,
      oauthBearerProvider: async () => ({ value: await currentToken(sasl) }),
    };
  }
  const { mechanism, username, password } = sasl;
  return { mechanism, username, password: reveal(password) } as NonNullable<KafkaConfig["sasl"]>;
}

export class KafkaJsClient implements KafkaClient {
  readonly #context: Context;
  readonly #kafka: Kafka;
  readonly #opened: (Producer | Subscription)[] = [];
  #admin: Promise<Admin> | undefined;
  #closed = false;

  constructor(settings: KafkaSettings, context: Context) {
    this.#context = context;
    registerCodecs(context.work);
    const config: KafkaConfig = {
      clientId: settings.clientId,
      brokers: settings.brokers.map(seedBroker),
      socketFactory: openSocket,
      connectionTimeout: settings.connectTimeout,
      requestTimeout: settings.requestTimeout,
      logLevel: logLevel.NOTHING,
      retry: { retries: 0 },
    };
    if (settings.tls !== undefined) {
      const { insecureSkipVerify, ...tls } = settings.tls;
      config.ssl = { ...tls, minVersion: "TLSv1.2", rejectUnauthorized: insecureSkipVerify !== true };
      if (insecureSkipVerify) {
        context.logger.warn({ node: context.node }, "TLS certificates are not verified (insecureSkipVerify)");
      }
    }
    if (settings.sasl !== undefined) {
      config.sasl = login(settings.sasl);
    }
    this.#kafka = new KafkaClass(config);
  }

  async describe(topics: readonly string[]): Promise<ReadonlyMap<string, TopicDescription | undefined>> {
    const admin = await this.#admins();
    try {
      // Metadata of all topics: asking for one by name would create it where brokers create topics on demand.
      const existing = new Set(await admin.listTopics());
      const result = new Map<string, TopicDescription | undefined>(topics.map((topic) => [topic, undefined]));
      const found = topics.filter((topic) => existing.has(topic));
      if (found.length === 0) return result;
      const metadata = await admin.fetchTopicMetadata({ topics: found });
      const configs = await admin.describeConfigs({
        includeSynonyms: false,
        resources: found.map((name) => ({
          type: ConfigResourceTypes.TOPIC,
          name,
          configNames: ["max.message.bytes"],
        })),
      });
      for (const { name, partitions } of metadata.topics) {
        const limit = configs.resources
          .find((resource) => resource.resourceName === name)
          ?.configEntries.find((entry) => entry.configName === "max.message.bytes")?.configValue;
        result.set(name, { partitions: partitions.length, maxMessageBytes: Number(limit ?? 1_048_588) });
      }
      return result;
    } catch (error) {
      throw await this.#failed(error);
    }
  }

  async create(topics: readonly NewTopic[]): Promise<void> {
    const admin = await this.#admins();
    try {
      await admin.createTopics({
        waitForLeaders: true,
        topics: topics.map(({ topic, partitions, replicationFactor }) => ({
          topic,
          numPartitions: partitions,
          replicationFactor,
        })),
      });
    } catch (error) {
      throw await this.#failed(creationError(error, topics));
    }
  }

  async offsets(topic: string): Promise<readonly PartitionOffsets[]> {
    const admin = await this.#admins();
    try {
      const offsets = await admin.fetchTopicOffsets(topic);
      return offsets.map(({ partition, low, high }) => ({
        partition,
        earliest: Number(low),
        latest: Number(high),
      }));
    } catch (error) {
      throw await this.#failed(error);
    }
  }

  async committed(group: string, topic: string): Promise<ReadonlyMap<number, number>> {
    const admin = await this.#admins();
    try {
      const committed = new Map<number, number>();
      for (const { partitions } of await admin.fetchOffsets({ groupId: group, topics: [topic] })) {
        for (const { partition, offset } of partitions)
          if (Number(offset) >= 0) committed.set(partition, Number(offset));
      }
      return committed;
    } catch (error) {
      throw await this.#failed(error);
    }
  }

  async subscribe(options: SubscribeOptions, listener: SubscriptionListener): Promise<Subscription> {
    const subscription = await subscribe(this.#kafka, this.#context, options, listener);
    this.#opened.push(subscription);
    return subscription;
  }

  async producer(): Promise<Producer> {
    const producer = this.#kafka.producer({ allowAutoTopicCreation: false, retry: { retries: 0 } });
    try {
      await producer.connect();
    } catch (error) {
      throw driverError(error);
    }
    const port = new KafkaJsProducerPort(producer, this.#context);
    this.#opened.push(port);
    return port;
  }

  async close(deadline: Time): Promise<void> {
    this.#closed = true;
    const admin = this.#admin;
    this.#admin = undefined;
    await Promise.all(this.#opened.splice(0).map((opened) => opened.close(deadline)));
    if (admin !== undefined)
      await within(
        this.#context,
        deadline,
        admin.then((it) => it.disconnect()),
      );
  }

  #admins(): Promise<Admin> {
    if (this.#closed) return Promise.reject(new DriverError("retry", "the client is closed"));
    this.#admin ??= (async () => {
      const admin = this.#kafka.admin({ retry: { retries: 2, initialRetryTime: 100 } });
      try {
        await admin.connect();
        // Without metadata kafkajs knows no broker to ask for a group's coordinator.
        await admin.listTopics();
        return admin;
      } catch (error) {
        this.#admin = undefined;
        throw driverError(error);
      }
    })();
    return this.#admin;
  }

  /** Drops the admin connection after a failure, so that the next call makes a new one. */
  async #failed(error: unknown): Promise<DriverError> {
    const admin = this.#admin;
    this.#admin = undefined;
    await admin?.then((it) => it.disconnect()).catch(() => {});
    return driverError(error);
  }
}

interface KafkaJsBatch extends EncodedBatch {
  readonly messages: Message[];
}

const compressionTypes: Readonly<Record<Codec, number>> = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

/**
 * kafkajs keeps a connection on which an answer did not come in time, and sends the next request on it too. Where
 * nothing comes through any more while the connection stays open, that would go on for ever: after such a request
 * everything is connected anew. It also leaves out partitions that its metadata does not know, and reads that only once:
 * one that an answer leaves out twice in a row may be new, and connecting anew reads it again.
 */
class KafkaJsProducerPort implements Producer {
  readonly #context: Context;
  readonly #producer: KafkaJsProducer;
  #silent = false;
  /** Partitions that the last answer to a request for them left out. */
  readonly #leftOut = new Set<string>();
  #mending: Promise<void> | undefined;
  #closed = false;

  constructor(producer: KafkaJsProducer, context: Context) {
    this.#producer = producer;
    this.#context = context;
  }

  encode({ topic, partition }: TopicPartition, batch: Batch, from: number, to: number): EncodedBatch {
    const messages: Message[] = new Array(to - from);
    let size = 61;
    for (let entry = from; entry < to; entry++) {
      const key = batch.key(entry);
      const value = batch.payload(entry);
      const headers = batch.headers(entry);
      const timestamp = batch.timestamp(entry);
      // kafkajs takes a number where its types say text, and would only parse the text again.
      const message = {
        key,
        value,
        partition,
        // It would take the number 0 for "none", and not the text.
        timestamp: timestamp > 0 ? timestamp : timestamp === 0 ? "0" : undefined,
      } as unknown as Message;
      size += recordSize(key?.length ?? 0, value?.length ?? 0);
      if (headers.length > 0) {
        message.headers = kafkaJsHeaders(headers);
        for (const [name, content] of headers) size += name.length * 3 + headerLength(content) + 10;
      }
      messages[entry - from] = message;
    }
    const encoded: KafkaJsBatch = {
      topic,
      partition,
      messages,
      count: to - from,
      size,
      exact: false,
      codec: batch.codec,
    };
    return encoded;
  }

  async send(batches: readonly EncodedBatch[]): Promise<readonly ProduceResult[]> {
    const byCodec = new Map<Codec, KafkaJsBatch[]>();
    for (const batch of batches as readonly KafkaJsBatch[]) {
      const group = byCodec.get(batch.codec);
      if (group === undefined) byCodec.set(batch.codec, [batch]);
      else group.push(batch);
    }
    const answers = await Promise.all([...byCodec].map(([codec, group]) => this.#sendTogether(codec, group)));
    return answers.flat();
  }

  async close(deadline: Time): Promise<void> {
    this.#closed = true;
    await within(this.#context, deadline, this.#producer.disconnect());
  }

  async #mend(): Promise<void> {
    this.#mending ??= (async () => {
      // Waits for other requests under way, which may time out as well.
      await this.#producer.disconnect();
      if (this.#closed) throw new Error("the producer is closed");
      await this.#producer.connect();
      this.#silent = false;
    })().finally(() => {
      this.#mending = undefined;
    });
    await this.#mending;
  }

  async #sendTogether(codec: Codec, batches: readonly KafkaJsBatch[]): Promise<readonly ProduceResult[]> {
    try {
      if (this.#silent) await this.#mend();
      const answers = await this.#producer.sendBatch({
        acks: -1,
        compression: compressionTypes[codec],
        topicMessages: byTopic(batches),
      });
      // An answer may name a partition twice and another not at all: only those it names are stored.
      const named = new Map(
        answers.map((answer) => [`${answer.topicName}/${answer.partition}`, answer.baseOffset]),
      );
      return batches.flatMap(({ topic, partition }) => {
        const name = `${topic}/${partition}`;
        const offset = named.get(name);
        if (named.has(name)) this.#leftOut.delete(name);
        else if (this.#leftOut.delete(name)) this.#silent = true;
        else this.#leftOut.add(name);
        return named.has(name)
          ? [
              {
                topic,
                partition,
                offset: offset === undefined ? undefined : Number(offset),
                error: undefined,
              },
            ]
          : [];
      });
    } catch (error) {
      if (isTimeout(error)) this.#silent = true;
      const reason = driverError(error);
      return batches.map(({ topic, partition }) => ({ topic, partition, offset: undefined, error: reason }));
    }
  }
}

/**
 * Messages already grouped by partition, in the only two ways kafkajs looks at them: it finds none without a
 * value, and reduces them to groups. Left to itself it groups by copying each partition's list once for every
 * message in it, which takes longer than all the rest of sending.
 */
class Grouped {
  readonly #groups: Readonly<Record<number, readonly Message[]>>;

  constructor(groups: Readonly<Record<number, readonly Message[]>>) {
    this.#groups = groups;
  }

  find(): undefined {
    return undefined;
  }

  reduce(): Readonly<Record<number, readonly Message[]>> {
    return this.#groups;
  }
}

function byTopic(batches: readonly KafkaJsBatch[]): { topic: string; messages: Message[] }[] {
  const topics = new Map<string, Record<number, readonly Message[]>>();
  for (const { topic, partition, messages } of batches) {
    const groups = topics.get(topic);
    if (groups === undefined) topics.set(topic, { [partition]: messages });
    else groups[partition] = messages;
  }
  return [...topics].map(([topic, groups]) => ({
    topic,
    messages: new Grouped(groups) as unknown as Message[],
  }));
}

/** An upper estimate of one record in a v2 batch: lengths and deltas as varints. */
function recordSize(key: number, value: number): number {
  return key + value + 22;
}

function headerLength(content: HeaderValue): number {
  if (content === null) return 0;
  return Buffer.isBuffer(content) ? content.length : Buffer.byteLength(String(content));
}

/** kafkajs has headers as an object: names keep the order of their first occurrence. */
function kafkaJsHeaders(
  headers: readonly (readonly [string, HeaderValue])[],
): NonNullable<Message["headers"]> {
  const result = Object.create(null) as Record<string, Buffer | Buffer[]>;
  for (const [name, content] of headers) {
    const bytes = Buffer.isBuffer(content)
      ? content
      : content === null
        ? Buffer.alloc(0)
        : Buffer.from(String(content));
    const present = result[name];
    if (present === undefined) result[name] = bytes;
    else if (Array.isArray(present)) present.push(bytes);
    else result[name] = [present, bytes];
  }
  return result;
}
