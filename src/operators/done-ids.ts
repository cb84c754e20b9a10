import type { Clock, Context, Meter, Time } from "../component/context.ts";
import type { DoneId, IdMeaning, IdStore, IdStoreSession } from "../component/id-store.ts";
import type { Lane } from "../message/lane.ts";
import { type Forgotten, RecentIds } from "./recent-ids.ts";

/** The wall clock has jumped when it and the monotonic one have come so much apart, ms. */
const jump = 1_000;
/** The store is written anew when it has more than twice the ids that count, and so many more at least. */
const worthwhile = 10_000;

export interface DoneIdsSettings {
  readonly scope: IdMeaning["scope"];
  /** In all. */
  readonly capacity: number;
  /** ms, or Infinity. */
  readonly ttl: number;
}

/** The ids of one scope. */
export interface DoneTable {
  readonly scope: string;
  readonly ids: RecentIds;
  /** Lanes at work that have it. */
  lanes: number;
}

/** A delivered id that is to be remembered. */
export interface KeptId extends DoneId {
  readonly table: DoneTable;
}

/** Who waits for ids to be kept. */
export interface Keeper<K extends KeptId> {
  /** The id is as durable as the store can make it. */
  kept(id: K): void;
  /** The store has failed, and no id will be kept any more. */
  fail(error: Error): void;
  /** As in the operator's context. */
  busy(): () => void;
}

/**
 * The ids that dedup knows to be done: in memory, where they are looked up, and if there is a store in that as
 * well, so that the next run begins with them.
 *
 * In memory alone the ids of a lane go with the lane. With a store they stay, under the lane's name, for whenever it
 * comes back, in this process or the next; but ids of lanes that are away give way to those that are here. What
 * another process delivers of such a lane meanwhile is not among them.
 *
 * **Before its message settles an id is in the store.** So the upstream checkpoint never passes a message whose id a
 * crash could take away, and what a crash lets be repeated is what was delivered and not yet in the store. The ids
 * of all messages that end while a write is out go together in the next one: one sync for all of them, and what
 * waits for it is bounded by the credit of the messages.
 *
 * Times in the store are of the wall clock, since nothing else outlives a process; while it runs the monotonic clock
 * alone counts. If the wall clock jumps meanwhile, the store is written anew by the new time. A jump that comes while no process
 * runs cannot be seen: forward, it lets ids expire early, and duplicates of them pass; backward, ids written before
 * seem to lie ahead, and count as if they were written just now, so that they are remembered for too long by one ttl
 * at most.
 */
export class DoneIds<K extends KeptId = KeptId> {
  readonly #clock: Clock;
  readonly #settings: DoneIdsSettings;
  readonly #seed: number;
  readonly #store: IdStoreSession | undefined;
  readonly #forgotten: Forgotten = { evicted: 0, expired: 0 };
  /** By lane, or by scope where they are stored; those of lanes that are away in the order in which they went. */
  readonly #tables = new Map<Lane | string, DoneTable>();
  /** By how much the wall clock was ahead of the monotonic one when the store's times were right. */
  #offset = 0;
  #waiting: K[] = [];
  #writing: Promise<void> | undefined;
  #failed = false;
  #over = false;

  constructor(context: Context, settings: DoneIdsSettings, store?: IdStoreSession) {
    this.#clock = context.clock;
    this.#settings = settings;
    this.#seed = Math.floor(context.random.next() * 2 ** 32) | 0;
    this.#store = store;
  }

  /** Takes a store, and remembers what is in it. Throws as {@link IdStore.open} does. */
  static async open<K extends KeptId>(
    context: Context,
    settings: DoneIdsSettings,
    store: IdStore,
    from: string,
  ): Promise<DoneIds<K>> {
    const session = await store.open(context, { scope: settings.scope, from });
    const ids = new DoneIds<K>(context, settings, session);
    try {
      await ids.#load(session);
    } catch (error) {
      await session.close(context.clock.now());
      throw error;
    }
    return ids;
  }

  /** Ids must be kept by {@link keep} before their messages settle. */
  get stored(): boolean {
    return this.#store !== undefined;
  }

  /** The ids that count for a lane. Balanced by {@link letGo}. */
  of(lane: Lane, lanes: number): DoneTable {
    const key = this.#keyOf(lane);
    const table = this.#tables.get(key) ?? this.#make(key, this.#shareOf(lanes));
    table.lanes++;
    return table;
  }

  /** The lane has ended. */
  letGo(lane: Lane): void {
    const key = this.#keyOf(lane);
    const table = this.#tables.get(key)!;
    if (--table.lanes > 0 || this.#settings.scope === "topology") return;
    this.#tables.delete(key);
    if (this.#store !== undefined) this.#tables.set(key, table);
  }

  /** Gives each lane its part. */
  share(lanes: number): void {
    if (this.#settings.scope === "topology") return;
    const share = this.#shareOf(lanes);
    const now = this.now();
    for (const { ids, lanes: users } of this.#tables.values()) if (users > 0) ids.resize(share, now);
    this.#trim();
  }

  /** Now, in ms, where it matters. */
  now(): Time {
    const timeless = this.#store === undefined && this.#settings.ttl === Number.POSITIVE_INFINITY;
    return timeless ? 0 : this.#clock.now();
  }

  /** Remembers an id that was delivered, and tells `keeper` once it is in the store. */
  keep(id: K, keeper: Keeper<K>): void {
    if (this.#over || this.#failed) return;
    this.#waiting.push(id);
    this.#writing ??= this.#write(keeper);
  }

  async #write(keeper: Keeper<K>): Promise<void> {
    const done = keeper.busy();
    // On a later turn: all that one acknowledgement settles goes together.
    await new Promise<void>((resolve) => this.#clock.defer(resolve));
    try {
      await this.#writeAll(keeper);
    } catch (error) {
      this.#failed = true;
      keeper.fail(error as Error);
    } finally {
      this.#writing = undefined;
      done();
    }
  }

  report(meter: Meter): void {
    const { evicted, expired } = this.#forgotten;
    if (evicted > 0) meter.count("dedup_evicted_total", evicted);
    if (expired > 0) meter.count("dedup_expired_total", expired);
    this.#forgotten.evicted = 0;
    this.#forgotten.expired = 0;
  }

  /** Lets go of the store, after the write that is under way. */
  async close(deadline: Time): Promise<void> {
    const store = this.#store;
    this.#over = true;
    await this.#writing;
    try {
      // The next run then begins with what is remembered, in the order in which it would be forgotten.
      if (store !== undefined && !this.#failed && store.count > this.#size) await this.#replace(store);
    } finally {
      await store?.close(deadline);
    }
  }

  async #load(store: IdStoreSession): Promise<void> {
    const now = this.#clock.now();
    const wall = this.#clock.wall();
    const { capacity, ttl } = this.#settings;
    let ahead = false;
    this.#offset = wall - now;
    await store.load(({ scope, id, at }) => {
      if (at > wall) ahead = true;
      const age = Math.max(0, wall - at);
      if (age >= ttl) return;
      const { ids } = this.#tables.get(scope) ?? this.#make(scope, capacity);
      ids.put(id, now - age);
    });
    // After a crash there may be ids that were forgotten. Which they are is not known: all lanes give way alike.
    if (this.#size > capacity)
      for (const { ids } of this.#tables.values()) ids.resize(this.#shareOf(this.#tables.size), now);
    if (ahead || store.damaged) await this.#replace(store);
  }

  async #writeAll(keeper: Keeper<K>): Promise<void> {
    const store = this.#store!;
    while (this.#waiting.length > 0 && !this.#over) {
      const group = this.#waiting;
      this.#waiting = [];
      await store.add(group);
      const now = this.#clock.now();
      for (const one of group) {
        one.table.ids.put(one.id, now);
        keeper.kept(one);
      }
      this.#trim();
      if (this.#isOutdated(store)) await this.#replace(store);
    }
  }

  #isOutdated(store: IdStoreSession): boolean {
    const offset = this.#clock.wall() - this.#clock.now();
    return Math.abs(offset - this.#offset) > jump || store.count > 2 * this.#size + worthwhile;
  }

  /** Writes the store anew, a part at a time, while the ids go on being asked for. */
  async #replace(store: IdStoreSession): Promise<void> {
    const tables = [...this.#tables.values()];
    this.#offset = this.#clock.wall() - this.#clock.now();
    for (const { ids } of tables) ids.freeze();
    try {
      await store.replace(this.#doneIn(tables));
    } finally {
      const now = this.now();
      for (const { ids } of tables) ids.thaw(now);
    }
  }

  *#doneIn(tables: readonly DoneTable[]): Generator<DoneId> {
    const now = this.#clock.now();
    for (const { scope, ids } of tables) {
      for (const { id, added } of ids.entries()) {
        if (now - added < this.#settings.ttl) yield { scope, id, at: this.#offset + added };
      }
    }
  }

  get #size(): number {
    let size = 0;
    for (const { ids } of this.#tables.values()) size += ids.size;
    return size;
  }

  /** Ids of lanes that are away give way, of the one that went first before the others. */
  #trim(): void {
    if (this.#store === undefined) return;
    let excess = this.#size - this.#settings.capacity;
    if (excess <= 0) return;
    const now = this.now();
    for (const [key, { ids, lanes }] of this.#tables) {
      if (lanes > 0 || excess <= 0) continue;
      const staying = ids.size - excess;
      excess -= ids.size;
      if (staying > 0) ids.resize(staying, now);
      else this.#tables.delete(key);
    }
  }

  #keyOf(lane: Lane): Lane | string {
    if (this.#settings.scope === "topology") return "";
    return this.#store === undefined ? lane : nameOf(lane);
  }

  #make(key: Lane | string, capacity: number): DoneTable {
    const ids = new RecentIds(capacity, this.#settings.ttl, this.#seed, this.#forgotten);
    const table: DoneTable = { scope: typeof key === "string" ? key : "", ids, lanes: 0 };
    this.#tables.set(key, table);
    return table;
  }

  #shareOf(lanes: number): number {
    const { scope, capacity } = this.#settings;
    return scope === "topology" ? capacity : Math.max(1, Math.floor(capacity / Math.max(1, lanes)));
  }
}

/** The same for each epoch of a lane, and for no two lanes of a topology. */
function nameOf({ origin: { source, target, partition } }: Lane): string {
  return JSON.stringify([source, target, ...(partition === undefined ? [] : [partition])]);
}
