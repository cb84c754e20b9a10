import type { Context, Timer } from "../../component/context.ts";
import { messageOf } from "../../errors.ts";
import type { KafkaClient } from "./driver.ts";

export interface Growth {
  readonly topic: string;
  /** Partitions at the last look, and now. */
  readonly before: number;
  readonly now: number;
}

/** Looks every `age` ms whether topics have got more partitions than they had. */
export class GrowthWatch {
  readonly #context: Context;
  readonly #client: KafkaClient;
  readonly #counts: Map<string, number>;
  readonly #age: number;
  readonly #grown: (growth: Growth) => void;
  #timer: Timer | undefined;
  #stopped = false;

  /** @param counts partitions of each topic at the start. */
  constructor(
    context: Context,
    client: KafkaClient,
    counts: ReadonlyMap<string, number>,
    age: number,
    grown: (growth: Growth) => void,
  ) {
    this.#context = context;
    this.#client = client;
    this.#counts = new Map(counts);
    this.#age = age;
    this.#grown = grown;
    this.#arm();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#stopped || this.#context.signal.aborted) return;
    this.#timer = this.#context.clock.after(this.#age, () => {
      this.#look().finally(() => this.#arm());
    });
  }

  async #look(): Promise<void> {
    try {
      const topics = await this.#client.describe([...this.#counts.keys()]);
      for (const [topic, before] of [...this.#counts]) {
        const now = topics.get(topic)?.partitions ?? before;
        if (this.#stopped || now <= before) continue;
        this.#counts.set(topic, now);
        this.#context.meter.count("partition_growths_total");
        this.#grown({ topic, before, now });
      }
    } catch (error) {
      // Whoever reads or writes the topic has the same trouble, and tells of it.
      const { logger, node } = this.#context;
      logger.debug({ node, error: messageOf(error) }, "cannot look for new partitions");
    }
  }
}
