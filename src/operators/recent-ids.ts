/** What became of remembered ids, summed over all the memories that share it. */
export interface Forgotten {
  /** Ids given up for want of room while they still counted. */
  evicted: number;
  /** Ids whose time was over. */
  expired: number;
}

/** No entry. */
const none = -1;
/** An id lies at most so far from where its hash points, whatever ids someone chooses to send. */
const reach = 256;
const smallest = 256;

/** Places of an entry's link. The fourth is empty: no link lies across two lines of the processor's cache. */
const [hashAt, newer, older] = [0, 1, 2];
const linkOf = (entry: number) => entry << 2;

/**
 * The ids that dedup remembers as done: at most `capacity`, each for at most `ttl` ms from the moment it was added.
 * Asking for an id makes it recent again but no younger. Forgetting one only lets a duplicate pass.
 *
 * Why not a Map, or a cache over one: here every id comes once, stays for `capacity` others and goes. Under such a
 * churn a Map is rehashed again and again, which costs three times all the rest of dedup. This is an open hash
 * table of entry numbers, and a list through the entries from the least to the most recent, all in typed arrays.
 *
 * It has the room that its ids need and grows by doubling, so an unused capacity costs nothing.
 */
export class RecentIds {
  readonly #ttl: number;
  readonly #seed: number;
  readonly #forgotten: Forgotten;
  #capacity: number;
  #size = 0;
  /**
   * By hash, in twice the room or more, a power of 2: entry number + 1, or 0 where there is none, and beside it the
   * whole hash, so that looking past other ids fetches nothing of theirs from memory.
   */
  #table = new Int32Array(0);
  #mask = 0;
  /** By entry: the id, and when it was added. */
  #ids: (string | undefined)[] = [];
  #added = new Float64Array(0);
  /** By entry, in one piece of memory: its hash, and its neighbours in the list. */
  #links = new Int32Array(0);
  #newest = none;
  #oldest = none;
  /** First of the entries not in use, which "newer" chains. */
  #free = none;
  /** While {@link entries} are read: the list stays as it is, and this is the capacity from then on. */
  #frozen: number | undefined;

  /**
   * @param ttl ms, or Infinity.
   * @param seed of the hash, an integer.
   */
  constructor(capacity: number, ttl: number, seed: number, forgotten: Forgotten) {
    this.#capacity = capacity;
    this.#ttl = ttl;
    this.#seed = seed;
    this.#forgotten = forgotten;
    this.#rebuild(Math.min(capacity, smallest));
  }

  get size(): number {
    return this.#size;
  }

  get capacity(): number {
    return this.#capacity;
  }

  /** Whether the id is remembered at time `now`. */
  has(id: string, now: number): boolean {
    const entry = this.#find(id, hashOf(id, this.#seed));
    if (entry === none) return false;
    if (now - this.#added[entry]! >= this.#ttl) {
      if (this.#frozen !== undefined) return false;
      this.#remove(entry);
      this.#forgotten.expired++;
      return false;
    }
    if (this.#frozen === undefined && entry !== this.#newest) {
      this.#unlink(entry);
      this.#link(entry);
    }
    return true;
  }

  /** Remembers an id that {@link has} does not know, in place of the least recent one if there is no room. */
  add(id: string, now: number): void {
    if (this.#size === this.#capacity) this.#forgetOldest(now);
    else if (this.#free === none) this.#rebuild(Math.min(this.#capacity, this.#size * 2));
    this.#insert(id, hashOf(id, this.#seed), now);
  }

  /** Remembers an id, as of `now`, whether or not it is known. */
  put(id: string, now: number): void {
    const entry = this.#find(id, hashOf(id, this.#seed));
    if (entry !== none) this.#remove(entry);
    this.add(id, now);
  }

  /** Between this and {@link thaw} ids may be asked for, and {@link entries} read; nothing may be added. */
  freeze(): void {
    this.#frozen = this.#capacity;
  }

  /** Does what was put off. */
  thaw(now: number): void {
    const capacity = this.#frozen!;
    this.#frozen = undefined;
    if (capacity !== this.#capacity) this.resize(capacity, now);
  }

  /** What is remembered, the least recent first, with when it was added. What has expired may be among it. */
  *entries(): Generator<{ readonly id: string; readonly added: number }> {
    for (let entry = this.#oldest; entry !== none; entry = this.#links[linkOf(entry) + newer]!) {
      yield { id: this.#ids[entry]!, added: this.#added[entry]! };
    }
  }

  /** Changes how many are remembered; the least recent go first. */
  resize(capacity: number, now: number): void {
    if (this.#frozen !== undefined) {
      this.#frozen = capacity;
      return;
    }
    this.#capacity = capacity;
    while (this.#size > capacity) this.#forgetOldest(now);
    if (this.#ids.length > capacity) this.#rebuild(capacity);
  }

  #find(id: string, hash: number): number {
    const table = this.#table;
    const mask = this.#mask;
    for (let at = hash & mask; table[at << 1] !== 0; at = (at + 1) & mask) {
      if (table[(at << 1) + 1] !== hash) continue;
      const entry = table[at << 1]! - 1;
      if (this.#ids[entry] === id) return entry;
    }
    return none;
  }

  #insert(id: string, hash: number, added: number): void {
    let at = hash & this.#mask;
    let distance = 0;
    while (this.#table[at << 1] !== 0) {
      if (++distance === reach) {
        this.#forgotten.evicted++;
        return;
      }
      at = (at + 1) & this.#mask;
    }
    const entry = this.#free;
    const link = linkOf(entry);
    this.#free = this.#links[link + newer]!;
    this.#table[at << 1] = entry + 1;
    this.#table[(at << 1) + 1] = hash;
    this.#ids[entry] = id;
    this.#links[link + hashAt] = hash;
    this.#added[entry] = added;
    this.#link(entry);
    this.#size++;
  }

  #forgetOldest(now: number): void {
    const entry = this.#oldest;
    if (now - this.#added[entry]! >= this.#ttl) this.#forgotten.expired++;
    else this.#forgotten.evicted++;
    this.#remove(entry);
  }

  #remove(entry: number): void {
    const table = this.#table;
    const mask = this.#mask;
    const link = linkOf(entry);
    let hole = this.#links[link + hashAt]! & mask;
    while (table[hole << 1] !== entry + 1) hole = (hole + 1) & mask;
    // Whatever was put further on because this place was taken moves up, so that no search stops short of it.
    for (let at = (hole + 1) & mask; table[at << 1] !== 0; at = (at + 1) & mask) {
      const home = table[(at << 1) + 1]! & mask;
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        table[hole << 1] = table[at << 1]!;
        table[(hole << 1) + 1] = table[(at << 1) + 1]!;
        hole = at;
      }
    }
    table[hole << 1] = 0;
    this.#unlink(entry);
    this.#ids[entry] = undefined;
    this.#links[link + newer] = this.#free;
    this.#free = entry;
    this.#size--;
  }

  /** Makes the entry the most recent. */
  #link(entry: number): void {
    const link = linkOf(entry);
    this.#links[link + older] = this.#newest;
    this.#links[link + newer] = none;
    if (this.#newest === none) this.#oldest = entry;
    else this.#links[linkOf(this.#newest) + newer] = entry;
    this.#newest = entry;
  }

  #unlink(entry: number): void {
    const links = this.#links;
    const link = linkOf(entry);
    const before = links[link + older]!;
    const after = links[link + newer]!;
    if (before === none) this.#oldest = after;
    else links[linkOf(before) + newer] = after;
    if (after === none) this.#newest = before;
    else links[linkOf(after) + older] = before;
  }

  /** Moves everything, oldest first, into arrays for `room` entries. */
  #rebuild(room: number): void {
    const ids = this.#ids;
    const added = this.#added;
    const links = this.#links;
    let entry = this.#oldest;
    const places = 2 ** Math.ceil(Math.log2(room * 2));
    this.#table = new Int32Array(places * 2);
    this.#mask = places - 1;
    this.#ids = new Array(room).fill(undefined);
    this.#added = new Float64Array(room);
    this.#links = new Int32Array(linkOf(room));
    for (let i = 0; i < room; i++) this.#links[linkOf(i) + newer] = i + 1 < room ? i + 1 : none;
    this.#free = 0;
    this.#newest = none;
    this.#oldest = none;
    this.#size = 0;
    for (; entry !== none; entry = links[linkOf(entry) + newer]!) {
      this.#insert(ids[entry]!, links[linkOf(entry) + hashAt]!, added[entry]!);
    }
  }
}

/** FNV-1a over the UTF-16 units, with a final mix since the table uses the low bits. */
export function hashOf(id: string, seed: number): number {
  let hash = seed;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}
