import { Observable, type OperatorFunction, type Subscriber } from "rxjs";
import { defineOperator } from "../component/define-operator.ts";
import type { Failure } from "../component/failure.ts";
import type { IdStore } from "../component/id-store.ts";
import type { Flowing, Operator, OperatorContext } from "../component/operator.ts";
import { type Duration, milliseconds, type OptionProblem } from "../component/options.ts";
import { Chunk } from "../message/chunk.ts";
import type { Lane } from "../message/lane.ts";
import { Outcome, type Settler } from "../message/outcome.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";
import { DoneIds, type DoneIdsSettings, type DoneTable, type Keeper, type KeptId } from "./done-ids.ts";
import { type IdentityPart, identityOf } from "./identity.ts";
import { JsonPointer, pointerProblem } from "./json-pointer.ts";

/** What an id may be. Kinds are kept apart: the text "1" and the number 1 are two ids. Null and undefined are none. */
export type DedupId = IdentityPart | Uint8Array | undefined | readonly (IdentityPart | undefined)[];

export interface DedupOptions<Value = unknown> {
  /**
   * What makes two messages the same: a function of the value (and of the message, where a header or the key
   * tells), the JSON pointer of a field ("/id"), or pointers of fields that count together. Pointers read numbers beyond 2⁵³ exactly; a function that returns one is
   * refused, since its last digits are already lost. A text that a function cuts out of a longer one
   * (`line.slice(0, 8)`) keeps the whole longer text in memory for as long as the id is remembered.
   */
  readonly id: OfMessage<Value, DedupId> | string | readonly string[];
  /**
   * Where an id counts. `lane` (default): among the messages of one Kafka partition or one RabbitMQ consumer, in
   * one assignment; a rebalance or a reconnect that ends the assignment forgets its ids. Right where equal ids
   * come by the same partition. `topology`: among all that this process reads, and a rebalance forgets nothing;
   * but one lane that runs ahead pushes out the ids of the others.
   */
  readonly scope?: "lane" | "topology";
  /**
   * How many delivered ids are remembered, in all; with scope `lane` each lane has an equal part. Beyond it the
   * least recent is forgotten, and a duplicate of it passes. About 200 bytes each, plus the id. Default 100,000.
   */
  readonly capacity?: number;
  /**
   * How long a delivered id is remembered, by the monotonic clock; over a restart, with a `store`, by the wall
   * clock. Default: until it is pushed out.
   */
  readonly ttl?: Duration;
  /**
   * Where ids are kept as well, so that the next run begins with them: `file({ root: "state" }).idStore({ path:
   * "orders" })`. One for each dedup and each process. An id is then in the store before its message is
   * acknowledged upstream, which costs a sync of the disk for each group of messages that end together. With scope
   * `lane` ids stay for a lane that comes back, also after a rebalance. Not used with embedded brokers.
   * Default: none, a restart forgets.
   */
  readonly store?: IdStore;
  /** What happens to a message without an id: it is rejected (`reject`, default) or goes on unseen (`pass`). */
  readonly missing?: "reject" | "pass";
}

const schema = {
  type: "object",
  properties: {
    id: {
      anyOf: [
        { isFunction: true },
        { type: "string", description: "a JSON pointer" },
        { type: "array", items: { type: "string" }, minItems: 1, description: "a list of them" },
      ],
    },
    scope: { enum: ["lane", "topology"] },
    capacity: { type: "integer", minimum: 1, maximum: 10_000_000 },
    ttl: { isDuration: true },
    missing: { enum: ["reject", "pass"] },
    store: {},
  },
  required: ["id"],
  additionalProperties: false,
};

export const dedupDefinition = defineOperator<DedupOptions<never>>({
  type: "dedup",
  summary: "Lets the first message of each id through and settles the others as duplicates.",
  guarantee: `An id is remembered only once its message was delivered or filtered. A duplicate that comes before
that waits, without holding back what follows it in its lane; if the first message is dead-lettered or returned to
its broker, the oldest that waits takes its place, in the order of that moment. So dedup loses nothing: each id is
delivered unless all its messages were rejected. Duplicates pass after their id was forgotten for want of capacity
or by its ttl; without a store also after a restart and, with scope lane, after a rebalance; and between processes
always, unless equal ids come to the same one. With a store a clean stop forgets nothing, and a crash what was
delivered and not yet in the store; a store that fails ends the run, and what was not written comes again. Ids of
a partition stay with the process that delivered them: where it moves to another, that one does not know them.`,
  schema,
  examples: [
    {
      title: "By a field, where its duplicates share a partition",
      code: "dedup({ id: (o) => o.id })",
      operator: () => dedup<{ id: string }>({ id: (order) => order.id }) as Operator<never, unknown>,
      given: [{ value: { id: "a", qty: 1 } }, { value: { id: "b", qty: 2 } }, { value: { id: "a", qty: 1 } }],
      expect: [
        { value: { id: "a", qty: 1 } },
        { value: { id: "b", qty: 2 } },
        { value: { id: "a", qty: 1 }, outcome: "duplicate" },
      ],
    },
    {
      title: "By two fields together, across all partitions",
      code: 'dedup({ id: ["/id", "/updated"], scope: "topology" })',
      operator: () => dedup({ id: ["/id", "/updated"], scope: "topology" }) as Operator<never, unknown>,
      given: [
        { value: { id: "us7000", updated: 1 } },
        { value: { id: "us7000", updated: 2 } },
        { value: { id: "us7000", updated: 1 } },
      ],
      expect: [
        { value: { id: "us7000", updated: 1 } },
        { value: { id: "us7000", updated: 2 } },
        { value: { id: "us7000", updated: 1 }, outcome: "duplicate" },
      ],
    },
  ],
  effect: ({ id }) => ({ takes: typeof id === "function" ? "any" : "value", leaves: "same" }),
  rejects: true,
  verify: ({ id, ttl, store }) => [
    ...pointersOf(id).flatMap(wrongPointer),
    ...(ttl !== undefined && milliseconds(ttl, 1) < 1 ? [tooShort] : []),
    ...(store === undefined ? [] : store?.kind === "idStore" ? store.problems : [noStore]),
  ],
  store: ({ store }) => (store?.kind === "idStore" ? store : undefined),
  async open(options, context) {
    const from = typeof options.id === "function" ? "a function" : [options.id].flat().join(" and ");
    const ids = await DoneIds.open<Keeping>(context, settingsOf(options), options.store!, from);
    return {
      build: (own) => deduplicated(options, own, ids),
      close: (deadline) => ids.close(deadline),
    };
  },
  build: (options, context) => deduplicated(options, context, new DoneIds(context, settingsOf(options))),
});

function settingsOf({ scope = "lane", capacity = 100_000, ttl }: DedupOptions<never>): DoneIdsSettings {
  return { scope, capacity, ttl: milliseconds(ttl, Number.POSITIVE_INFINITY) };
}

function deduplicated(
  options: DedupOptions<never>,
  context: OperatorContext,
  ids: DoneIds<Keeping>,
): OperatorFunction<Flowing, Flowing> {
  return (source) =>
    new Observable((subscriber) => {
      const dedup = new Dedup(options, context, ids, subscriber);
      const subscription = source.subscribe(dedup);
      return () => {
        subscription.unsubscribe();
        dedup.stop();
      };
    });
}

/** Lets the first message of each id through and settles the others as duplicates, once the first is delivered. */
export function dedup<Value>(options: DedupOptions<Value>): Operator<Value, Value> {
  return dedupDefinition.place<Value, Value>(options);
}

const tooShort: OptionProblem = {
  code: "option-invalid",
  message: 'dedup: "ttl" is under 1 ms',
  remedy: 'give a time such as "10m", or leave ttl out to remember ids until they are pushed out',
};

const noStore: OptionProblem = {
  code: "option-invalid",
  message: 'dedup: "store" is no id store',
  remedy: 'give one, as in file({ root: "state" }).idStore({ path: "orders" })',
};

function pointersOf(id: DedupOptions<never>["id"]): readonly string[] {
  if (typeof id === "function") return [];
  return typeof id === "string" ? [id] : id;
}

function wrongPointer(pointer: string): OptionProblem[] {
  const problem = pointerProblem(pointer);
  if (problem === undefined) return [];
  return [
    { code: "option-invalid", message: `dedup: "id" is not a JSON pointer: ${pointer}`, remedy: problem },
  ];
}

/** Reads what an id is made of from message `index` of a chunk. */
type ReadId = (chunk: Chunk, index: number) => unknown;

function reader(id: DedupOptions<never>["id"]): ReadId {
  if (typeof id === "function") return byIndex(id);
  if (typeof id === "string") {
    const pointer = new JsonPointer(id);
    return (chunk, index) => pointer.readExactly(chunk, index);
  }
  const pointers = id.map((text) => new JsonPointer(text));
  return (chunk, index) => pointers.map((pointer) => pointer.readExactly(chunk, index));
}

/**
 * What is known of ids in one scope. An id is absent, then pending (one message that carries it, its owner, is on
 * its way), then done. Pending ids cannot be forgotten; done ones can.
 *
 * Who owns a pending id stands in no map: the {@link Carriers} of the owner's chunk has it, and nobody else.
 */
interface Known {
  readonly pending: Pending;
  readonly done: DoneTable;
}

/** The ids under way. Each message adds and deletes one, and hardly any has twins, so these stand apart. */
class Pending {
  readonly #ids = new Set<string>();
  readonly #twins = new Map<string, Twin[]>();

  /** From now on the id is under way. False: it was already. */
  add(id: string): boolean {
    const before = this.#ids.size;
    return this.#ids.add(id).size > before;
  }

  /** The twins that wait for the id, oldest first. Undefined: none ever did. */
  twinsOf(id: string): Twin[] | undefined {
    return this.#twins.size === 0 ? undefined : this.#twins.get(id);
  }

  setTwins(id: string, twins: Twin[]): void {
    this.#twins.set(id, twins);
  }

  delete(id: string): void {
    this.#ids.delete(id);
    if (this.#twins.size > 0) this.#twins.delete(id);
  }
}

/** A lane with ids under way. */
interface Home {
  readonly lane: Lane;
  readonly known: Known;
  /** By chunk, those that own an id or wait for one. */
  readonly open: Set<Carriers>;
}

/** A message that waits for the outcome of another with its id, the owner. */
interface Twin {
  readonly id: string;
  readonly carriers: Carriers;
  /** The chunk it was taken out of, as it was then. */
  readonly chunk: Chunk;
  readonly index: number;
}

/** A delivered message whose id is on its way to the store: to all others it is still under way. */
interface Keeping extends KeptId {
  readonly carriers: Carriers;
  readonly index: number;
  readonly outcome: Outcome;
}

/** In place of the id of a message that is {@link Keeping}: it has its outcome, and cannot get another. */
const keeping = Symbol("keeping");

/**
 * The messages of one chunk that own an id or wait for one. It stands between the chunk and whoever heard its
 * outcomes before, and tells dedup how each owner ended.
 */
class Carriers implements Settler {
  readonly home: Home;
  /** By index in the chunk: the text of the id it owns, or the twin as which it waits. Undefined when it is over. */
  readonly ids: (string | Twin | typeof keeping | undefined)[];
  /** How many of `ids` are defined. */
  open = 0;
  readonly #dedup: Dedup;
  readonly #owner: Settler;
  readonly #first: number;

  constructor(dedup: Dedup, home: Home, chunk: Chunk) {
    this.#dedup = dedup;
    this.home = home;
    this.ids = new Array(chunk.length);
    this.#owner = chunk.owner;
    this.#first = chunk.first;
  }

  settle(index: number, outcome: Outcome): void {
    const id = this.ids[index];
    if (id === keeping) return;
    // After the epoch's end the revoke has let go of the id, or is about to.
    if (typeof id !== "string" || this.home.lane.ended) {
      this.pass(index, outcome);
      return;
    }
    if (this.#dedup.keeps(outcome)) {
      this.ids[index] = keeping;
      this.#dedup.keep(this, index, id, outcome);
      return;
    }
    this.pass(index, outcome);
    this.close(index);
    this.#dedup.ended(id, outcome, this.home.known);
  }

  /** Tells whoever heard the outcomes before. */
  pass(index: number, outcome: Outcome): void {
    this.#owner.settle(this.#first + index, outcome);
  }

  /** The message neither owns an id nor waits any longer. */
  close(index: number): void {
    this.ids[index] = undefined;
    if (--this.open === 0) this.home.open.delete(this);
  }
}

class Dedup implements Keeper<Keeping> {
  readonly #context: OperatorContext;
  readonly #subscriber: Subscriber<Flowing>;
  readonly #read: ReadId;
  readonly #passMissing: boolean;
  readonly #path: Pick<Failure, "path">;
  readonly #ids: DoneIds<Keeping>;
  readonly #scope: "lane" | "topology";
  /** One for each table, which lanes may share: what an ended lane left on its way to the store is known to the next. */
  readonly #known = new WeakMap<DoneTable, Known>();
  readonly #homes = new Map<Lane, Home>();
  /** Twins that have become owners and go out on the next turn. */
  #promoted: Twin[] = [];
  /** Twins of all lanes that wait. */
  #waiting = 0;
  #scheduled = false;
  #lanesChanged = false;
  #completing = false;
  #stopped = false;

  constructor(
    options: DedupOptions<never>,
    context: OperatorContext,
    ids: DoneIds<Keeping>,
    subscriber: Subscriber<Flowing>,
  ) {
    this.#context = context;
    this.#subscriber = subscriber;
    this.#read = reader(options.id);
    this.#passMissing = options.missing === "pass";
    this.#path = typeof options.id === "string" ? { path: options.id } : {};
    this.#ids = ids;
    this.#scope = options.scope ?? "lane";
  }

  next(item: Flowing): void {
    this.#emitPromoted();
    if (item instanceof Chunk) {
      this.#examine(item);
      this.#report();
      return;
    }
    if ("kind" in item && item.kind === "revoke") this.#revoke(item.lane);
    this.#subscriber.next(item);
  }

  error(error: unknown): void {
    this.stop();
    this.#subscriber.error(error);
  }

  complete(): void {
    this.#completing = true;
    this.#emitPromoted();
    this.#completeIfDone();
  }

  /** Nobody listens any more. */
  stop(): void {
    this.#stopped = true;
    this.#promoted = [];
    this.#report();
  }

  /** Whether an owner with this outcome settles only once its id is in the store. */
  keeps(outcome: Outcome): boolean {
    return this.#ids.stored && outcome <= Outcome.delivered;
  }

  keep(carriers: Carriers, index: number, id: string, outcome: Outcome): void {
    const { done: table } = carriers.home.known;
    const at = this.#context.clock.wall();
    this.#ids.keep({ id, at, scope: table.scope, table, carriers, index, outcome }, this);
  }

  /** The id is in the store: now its message settles, and whoever waits for it. */
  kept({ carriers, index, id, outcome }: Keeping): void {
    carriers.pass(index, outcome);
    carriers.close(index);
    this.#settleTwins(id, carriers.home.known.pending);
  }

  fail(error: Error): void {
    this.#context.fail(error);
  }

  busy(): () => void {
    return this.#context.busy();
  }

  /** An owner has its outcome: what becomes of its id, and of those that wait for it. */
  ended(id: string, outcome: Outcome, known: Known): void {
    const { pending, done } = known;
    // Filtered, duplicate (a later dedup knew it) and delivered are good ends; after all others it must come again.
    if (outcome > Outcome.delivered) {
      const twins = pending.twinsOf(id);
      if (twins === undefined) pending.delete(id);
      else this.#promote(id, twins, pending);
      return;
    }
    done.ids.add(id, this.#ids.now());
    this.#settleTwins(id, pending);
  }

  /** An id is done: those that waited for it are duplicates. */
  #settleTwins(id: string, pending: Known["pending"]): void {
    const twins = pending.twinsOf(id);
    pending.delete(id);
    if (twins === undefined) return;
    for (const twin of twins) {
      this.#leaves(twin);
      twin.carriers.pass(twin.index, Outcome.duplicate);
    }
  }

  #examine(chunk: Chunk): void {
    // What is left of an ended lane is `returned` already.
    if (chunk.lane.ended) return;
    const home = this.#homes.get(chunk.lane) ?? this.#open(chunk.lane);
    const { pending } = home.known;
    const done = home.known.done.ids;
    const now = this.#ids.now();
    const { length, state } = chunk;
    let carriers: Carriers | undefined;
    let waiting = 0;
    for (let i = 0; i < length; i++) {
      if (state[i] === 0) continue;
      const id = this.#idOf(chunk, i);
      if (id === undefined) continue;
      if (done.has(id, now)) {
        chunk.settle(i, Outcome.duplicate);
        continue;
      }
      carriers ??= new Carriers(this, home, chunk);
      carriers.open++;
      if (pending.add(id)) {
        carriers.ids[i] = id;
        continue;
      }
      const twin: Twin = { id, carriers, chunk, index: i };
      const twins = pending.twinsOf(id);
      if (twins === undefined) pending.setTwins(id, [twin]);
      else twins.push(twin);
      carriers.ids[i] = twin;
      chunk.takeOut(i);
      waiting++;
    }
    if (carriers !== undefined) home.open.add(carriers);
    if (waiting > 0) this.#wait(chunk.lane, waiting);
    if (chunk.live === 0) return;
    this.#subscriber.next(carriers === undefined ? chunk : chunk.handOver(carriers));
  }

  /** The message's id as exact text; undefined when it has none, and then it was rejected or passes. */
  #idOf(chunk: Chunk, index: number): string | undefined {
    let value: unknown;
    try {
      value = this.#read(chunk, index);
    } catch (error) {
      rejectThrown(this.#context, chunk, index, "the id function of dedup", error);
      return undefined;
    }
    const id = identityOf(value);
    if (typeof id === "string") return id;
    if (id.kind === "missing" && this.#passMissing) return undefined;
    if (isPromise(value)) {
      const advice = "it must return the id itself";
      rejectPromise(this.#context, chunk, index, "the id function of dedup", advice, value);
      return undefined;
    }
    this.#context.reject(chunk, index, {
      class: "business",
      code: id.kind === "missing" ? "id-missing" : "id-invalid",
      message: `the id ${id.reason}`,
      ...this.#path,
    });
    return undefined;
  }

  /** The oldest twin whose lane is alive becomes the owner; the others go on waiting, now for it. */
  #promote(id: string, twins: Twin[], pending: Known["pending"]): void {
    for (let twin = twins.shift(); twin !== undefined; twin = twins.shift()) {
      this.#leaves(twin);
      const { carriers, index } = twin;
      if (carriers.home.lane.ended) continue;
      carriers.ids[index] = id;
      carriers.open++;
      carriers.home.open.add(carriers);
      this.#promoted.push(twin);
      this.#schedule();
      return;
    }
    pending.delete(id);
  }

  /** The twin, already out of its list, no longer waits. */
  #leaves(twin: Twin): void {
    twin.carriers.close(twin.index);
    this.#wait(twin.carriers.home.lane, -1);
  }

  #wait(lane: Lane, count: number): void {
    this.#waiting += count;
    this.#context.waiting(lane, count);
    if (this.#waiting === 0 && this.#completing) this.#schedule();
  }

  #emitPromoted(): void {
    if (this.#promoted.length === 0) return;
    const promoted = this.#promoted;
    this.#promoted = [];
    for (const { carriers, chunk, index } of promoted) {
      if (!carriers.home.lane.ended) this.#subscriber.next(chunk.handOver(carriers).single(index));
    }
  }

  /** Lets go of a lane: its twins wait no longer, and the ids it owns pass to twins in other lanes. */
  #revoke(lane: Lane): void {
    const home = this.#homes.get(lane);
    if (home === undefined) return;
    this.#homes.delete(lane);
    this.#ids.letGo(lane);
    this.#reshare();
    const { pending } = home.known;
    for (const carriers of [...home.open]) {
      for (let i = 0; i < carriers.ids.length; i++) {
        const id = carriers.ids[i];
        if (typeof id !== "string") continue;
        carriers.close(i);
        const twins = pending.twinsOf(id);
        if (twins === undefined) pending.delete(id);
        else this.#promote(id, twins, pending);
      }
    }
    // What is still open are twins of owners in other lanes.
    for (const carriers of [...home.open]) {
      for (const twin of carriers.ids) {
        if (typeof twin === "object") this.#dropTwins(twin.id, lane, pending);
      }
    }
  }

  /** Takes the lane's twins out of those that wait for the id, the others keeping their order. */
  #dropTwins(id: string, lane: Lane, pending: Known["pending"]): void {
    const staying: Twin[] = [];
    for (const twin of pending.twinsOf(id) ?? []) {
      if (twin.carriers.home.lane === lane) this.#leaves(twin);
      else staying.push(twin);
    }
    pending.setTwins(id, staying);
  }

  #open(lane: Lane): Home {
    const done = this.#ids.of(lane, this.#homes.size + 1);
    const known: Known = this.#known.get(done) ?? { pending: new Pending(), done };
    this.#known.set(done, known);
    const home: Home = { lane, known, open: new Set() };
    this.#homes.set(lane, home);
    this.#reshare();
    return home;
  }

  /** A lane came or went: on the next turn, when most of its fellows have too, all get their new part. */
  #reshare(): void {
    if (this.#scope === "topology") return;
    this.#lanesChanged = true;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || this.#stopped) return;
    this.#scheduled = true;
    this.#context.clock.defer(() => {
      this.#scheduled = false;
      if (this.#stopped) return;
      if (this.#lanesChanged) this.#ids.share(this.#homes.size);
      this.#lanesChanged = false;
      this.#emitPromoted();
      this.#completeIfDone();
    });
  }

  /** Twins that wait when the input ends are owed to the output: whatever becomes of their owners, they come first. */
  #completeIfDone(): void {
    if (!this.#completing || this.#stopped || this.#waiting > 0 || this.#promoted.length > 0) return;
    this.#stopped = true;
    this.#report();
    this.#subscriber.complete();
  }

  #report(): void {
    this.#ids.report(this.#context.meter);
  }
}
