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
  /** Entry numbers + 1, by hash; 0 where there is none. Twice the room or more, and a power of 2. */
  #table = new Int32Array(0);
  #mask = 0;
  /** By entry: the id, its hash, when it was added, and its neighbours in the list. */
  #ids: (string | undefined)[] = [];
  #hashes = new Int32Array(0);
  #added = new Float64Array(0);
  #newer = new Int32Array(0);
  #older = new Int32Array(0);
  #newest = none;
  #oldest = none;
  /** First of the entries not in use, which `newer` chains. */
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
    for (let entry = this.#oldest; entry !== none; entry = this.#newer[entry]!) {
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
    for (let at = hash & this.#mask; this.#table[at] !== 0; at = (at + 1) & this.#mask) {
      const entry = this.#table[at]! - 1;
      if (this.#hashes[entry] === hash && this.#ids[entry] === id) return entry;
    }
    return none;
  }

  #insert(id: string, hash: number, added: number): void {
    let at = hash & this.#mask;
    let distance = 0;
    while (this.#table[at] !== 0) {
      if (++distance === reach) {
        this.#forgotten.evicted++;
        return;
      }
      at = (at + 1) & this.#mask;
    }
    const entry = this.#free;
    this.#free = this.#newer[entry]!;
    this.#table[at] = entry + 1;
    this.#ids[entry] = id;
    this.#hashes[entry] = hash;
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
    let hole = this.#hashes[entry]! & mask;
    while (table[hole] !== entry + 1) hole = (hole + 1) & mask;
    // Whatever was put further on because this place was taken moves up, so that no search stops short of it.
    for (let at = (hole + 1) & mask; table[at] !== 0; at = (at + 1) & mask) {
      const home = this.#hashes[table[at]! - 1]! & mask;
      if (((at - home) & mask) >= ((at - hole) & mask)) {
        table[hole] = table[at]!;
        hole = at;
      }
    }
    table[hole] = 0;
    this.#unlink(entry);
    this.#ids[entry] = undefined;
    this.#newer[entry] = this.#free;
    this.#free = entry;
    this.#size--;
  }

  /** Makes the entry the most recent. */
  #link(entry: number): void {
    this.#older[entry] = this.#newest;
    this.#newer[entry] = none;
    if (this.#newest === none) this.#oldest = entry;
    else this.#newer[this.#newest] = entry;
    this.#newest = entry;
  }

  #unlink(entry: number): void {
    const older = this.#older[entry]!;
    const newer = this.#newer[entry]!;
    if (older === none) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer === none) this.#newest = older;
    else this.#older[newer] = older;
  }

  /** Moves everything, oldest first, into arrays for `room` entries. */
  #rebuild(room: number): void {
    const ids = this.#ids;
    const hashes = this.#hashes;
    const added = this.#added;
    const newer = this.#newer;
    let entry = this.#oldest;
    this.#table = new Int32Array(2 ** Math.ceil(Math.log2(room * 2)));
    this.#mask = this.#table.length - 1;
    this.#ids = new Array(room).fill(undefined);
    this.#hashes = new Int32Array(room);
    this.#added = new Float64Array(room);
    this.#newer = Int32Array.from({ length: room }, (_, i) => (i + 1 < room ? i + 1 : none));
    this.#older = new Int32Array(room);
    this.#free = 0;
    this.#newest = none;
    this.#oldest = none;
    this.#size = 0;
    for (; entry !== none; entry = newer[entry]!) this.#insert(ids[entry]!, hashes[entry]!, added[entry]!);
  }
}

/** FNV-1a over the UTF-16 units, with a final mix since the table uses the low bits. */
export function hashOf(id: string, seed: number): number {
  let hash = seed;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}
