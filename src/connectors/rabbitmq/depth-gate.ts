import { pause } from "../../component/backoff.ts";
import type { Context, Time } from "../../component/context.ts";
import { messageOf } from "../../errors.ts";
import { Administration } from "./declare.ts";
import { isMissing, lastingError, missingTarget } from "./errors.ts";
import type { Link } from "./link.ts";

/** A gate's options, with every default filled in. */
export interface GateSettings {
  readonly queues: readonly string[];
  readonly closeAt: number;
  readonly openAt: number;
  /** ms */
  readonly every: number;
}

/**
 * Looks at the depth of queues further down the line, and says whether a source may take more in.
 *
 * ```
 *   unknown ─ every queue < closeAt ─► open ─ some queue ≥ closeAt ─► closed ─ every queue ≤ openAt ─► open
 * ```
 * While the queues cannot be seen it stays as it was: what is taken in has to be published to that broker, and
 * waits for it anyway. It counts ready messages, as the broker does; those that a consumer holds are not among them.
 */
export class DepthGate {
  /** Resolves after the first look; rejects when a queue is missing then. */
  readonly opened: Promise<void>;
  readonly #context: Context;
  readonly #link: Link;
  readonly #address: string;
  readonly #settings: GateSettings;
  readonly #changed: () => void;
  readonly #stop = new AbortController();
  #state: "unknown" | "open" | "closed" = "unknown";
  #reason: string | undefined;
  #trouble: string | undefined;

  constructor(
    context: Context,
    target: { readonly link: Link; readonly address: string },
    settings: GateSettings,
    changed: () => void,
  ) {
    const signal = AbortSignal.any([context.signal, this.#stop.signal]);
    this.#context = { ...context, signal };
    this.#link = target.link;
    this.#address = target.address;
    this.#settings = settings;
    this.#changed = changed;
    target.link.acquire();
    let tell!: { resolve: () => void; reject: (error: unknown) => void };
    this.opened = new Promise((resolve, reject) => {
      tell = { resolve, reject };
    });
    // Whoever stops the gate before its first look does not wait for it.
    this.opened.catch(() => {});
    this.#run(tell.resolve).catch(tell.reject);
  }

  get isOpen(): boolean {
    return this.#state === "open";
  }

  /** What keeps it closed, in words; undefined while it is open. */
  get reason(): string | undefined {
    if (this.isOpen) return undefined;
    return (
      this.#reason ?? this.#link.trouble ?? this.#trouble ?? "the queues downstream were not looked at yet"
    );
  }

  async stop(deadline: Time): Promise<void> {
    this.#stop.abort(new Error("the gate was stopped"));
    await this.#link.release(deadline);
  }

  async #run(tellOpened: () => void): Promise<void> {
    const { signal } = this.#context;
    let administration: Administration | undefined;
    let connection: unknown;
    while (!signal.aborted) {
      try {
        const current = await this.#link.connected();
        if (administration === undefined || connection !== current) {
          administration = new Administration(current);
          connection = current;
        }
        this.#apply(await this.#look(administration));
        this.#trouble = undefined;
        tellOpened();
      } catch (error) {
        if (signal.aborted) break;
        const lasting = lastingError(error, this.#address);
        // At the start a missing queue is a mistake; later it may be made again.
        if (this.#state === "unknown" && lasting !== undefined) throw lasting;
        this.#trouble = messageOf(error);
      }
      await pause(this.#context, this.#settings.every).catch(() => {});
    }
    throw signal.reason;
  }

  async #look(administration: Administration): Promise<ReadonlyMap<string, number>> {
    const depths = new Map<string, number>();
    for (const queue of this.#settings.queues) {
      try {
        const { messageCount } = await administration.ask((channel) => channel.checkQueue(queue));
        depths.set(queue, messageCount);
      } catch (error) {
        throw isMissing(error) ? missingTarget("queue", queue, this.#address) : error;
      }
    }
    return depths;
  }

  #apply(depths: ReadonlyMap<string, number>): void {
    const { closeAt, openAt } = this.#settings;
    const [queue, depth] = [...depths].reduce((deepest, one) => (one[1] > deepest[1] ? one : deepest));
    const mustClose = depth >= closeAt || (this.#state === "closed" && depth > openAt);
    this.#reason = mustClose
      ? `the gate is closed: queue "${queue}" on ${this.#address} holds ${depth} messages, and opens it at ${openAt}`
      : undefined;
    const next = mustClose ? "closed" : "open";
    if (next === this.#state) return;
    const isFirst = this.#state === "unknown";
    this.#state = next;
    const { logger, meter, node } = this.#context;
    if (mustClose) meter.count("gate_closings_total");
    if (mustClose || !isFirst) {
      logger.info({ node, queue, depth, closeAt, openAt }, mustClose ? "the gate closes" : "the gate opens");
    }
    this.#changed();
  }
}
