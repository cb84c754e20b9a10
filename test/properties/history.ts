import { type Content, type Expected, expectedOf, type Graph } from "./graph.ts";

/** What a history can show, by the names that testers of brokers use, and ours. */
export type AnomalyKind =
  /** Acknowledged to its broker, or never given out again, and not where it should be. */
  | "lost-write"
  /** Acknowledged before everything that it became was acknowledged. */
  | "early-ack"
  /** A committed offset went back. */
  | "commit-regression"
  /** A member committed for a partition that it does not hold. */
  | "foreign-commit"
  /** Two messages of one key changed places on one path. */
  | "order-inversion"
  /** More repeats than what happened allows. */
  | "duplicate-beyond-bound"
  /** Something of a run is left when it is over. */
  | "leak"
  /** Nothing moves, though nothing is in its way. */
  | "stuck"
  /** Messages without an outcome, or with two. */
  | "conservation"
  /** More in flight than may be. */
  | "memory-overrun"
  /** Arrived where it should not be, or as what it was not. */
  | "misclassified";

export class Anomaly extends Error {
  constructor(kind: AnomalyKind, what: string) {
    super(`${kind}: ${what}`);
    this.name = "Anomaly";
  }
}

/** A message that was given to a source. */
export interface Fed extends Content {
  readonly source: number;
  /** In the order of feeding. */
  readonly number: number;
  /** Undefined where the bytes are no content: decode rejects it. */
  readonly expected: Expected;
}

const undecodable: Expected = {
  at: [],
  rejected: true,
  rejectedBehind: [],
  mayBeRejected: true,
  times: 1,
};

/**
 * What happened at the brokers: what was fed, what each sink and the dead letters hold, what was acknowledged.
 * Everything is told to it in the order of events, and the checks that can be made at an event are made then.
 */
export class History {
  readonly fed = new Map<string, Fed>();
  readonly dead = new Map<string, number>();
  readonly #graph: Graph;
  readonly #copies = new Map<string, Fed[]>();
  /** By sink, path and id: how many times. */
  readonly #stored = new Map<string, number>();
  /** By sink, path, source and key: the ids in the order of their first arrival. */
  readonly #arrivals = new Map<string, Fed[]>();
  readonly #acked = new Set<string>();
  /** Deleted at their broker before they were acknowledged to it. */
  readonly #takenAway = new Set<string>();
  readonly #committed = new Map<string, number>();
  /** Writes beyond the first of a message. */
  repeats = 0;
  /** Messages that events of an audit tell of. */
  audited = 0;

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  feed(source: number, content: Content, decodable: boolean): void {
    const expected = decodable ? expectedOf(this.#graph, source, content) : undecodable;
    const fed: Fed = { ...content, source, number: this.fed.size, expected };
    this.fed.set(fed.uid, fed);
    const copies = this.#copies.get(fed.id);
    if (copies === undefined) this.#copies.set(fed.id, [fed]);
    else copies.push(fed);
  }

  /** These messages of a source, or all that are there, are deleted at the broker. */
  takeAway(source: number, uids?: ReadonlySet<string>): void {
    for (const { uid, source: from } of this.fed.values())
      if (from === source && (uids === undefined || uids.has(uid))) this.#takenAway.add(uid);
  }

  store(sink: number, bytes: Buffer | null): void {
    const content = JSON.parse(String(bytes)) as Content;
    const fed = this.fed.get(content.uid);
    const where = placeOf(sink, content.path);
    if (fed === undefined)
      throw new Anomaly("misclassified", `${where} holds ${content.uid}, which nobody fed`);
    if (!fed.expected.at.some((place) => place.sink === sink && place.path === content.path)) {
      throw new Anomaly("misclassified", `${fed.uid} is in ${where}, where it should not be`);
    }
    const at = `${where} ${fed.id}`;
    const times = this.#stored.get(at) ?? 0;
    this.#stored.set(at, times + 1);
    if (times > 0) {
      this.repeats++;
      return;
    }
    const line = `${where} ${fed.source} ${fed.key}`;
    const arrivals = this.#arrivals.get(line);
    if (arrivals === undefined) this.#arrivals.set(line, [fed]);
    else arrivals.push(fed);
  }

  event(bytes: Buffer | null): void {
    const { succeeded } = JSON.parse(String(bytes)) as { succeeded: number };
    this.audited += succeeded;
  }

  /** Whether events tell of everything that is where it belongs: a message is settled only once its event is. */
  checkAudit(): void {
    // What was taken away while it was under way never comes again, and may be there without its event.
    let owed = 0;
    for (const at of this.#stored.keys()) {
      const copies = this.#copies.get(at.slice(at.lastIndexOf(" ") + 1))!;
      if (!copies.some(({ uid }) => this.#takenAway.has(uid))) owed++;
    }
    if (this.audited < owed)
      throw new Anomaly("lost-write", `events tell of ${this.audited} messages, and ${owed} are there`);
  }

  deadLetter(bytes: Buffer | null): void {
    const uid = uidOf(bytes);
    const fed = this.fed.get(uid);
    if (fed?.expected.mayBeRejected !== true) {
      throw new Anomaly("misclassified", `${uid} is among the dead letters and was not rejected`);
    }
    this.dead.set(uid, (this.dead.get(uid) ?? 0) + 1);
  }

  /** The broker is told that it need not give the message again. */
  ack(uid: string): void {
    if (this.#acked.has(uid)) return;
    const fed = this.fed.get(uid);
    if (fed === undefined) return;
    const missing = this.missing(fed);
    if (missing !== undefined) throw new Anomaly("early-ack", `${uid} is acknowledged and ${missing}`);
    this.#acked.add(uid);
  }

  commit(group: string, member: string, where: string, offset: number, holds: boolean): void {
    const of = `${group} ${where}`;
    const before = this.#committed.get(of) ?? 0;
    if (offset < before) {
      throw new Anomaly("commit-regression", `${member} commits ${offset} for ${where} after ${before}`);
    }
    if (!holds) throw new Anomaly("foreign-commit", `${member} commits ${offset} for ${where}, not its own`);
    this.#committed.set(of, offset);
  }

  /** What is missing for the message to be settled, in words; undefined when it is. */
  missing({ uid, id, expected }: Fed): string | undefined {
    if (this.#takenAway.has(uid)) return undefined;
    for (const { sink, path } of expected.at) {
      const where = placeOf(sink, path);
      if (!this.#stored.has(`${where} ${id}`)) return `${id} is not in ${where}`;
    }
    if (this.dead.has(uid)) return undefined;
    if (expected.rejected) return "it is not among the dead letters";
    const copies = this.#copies.get(id)!;
    for (const dedups of expected.rejectedBehind) {
      const nearest = dedups.at(-1)!;
      const neverWell = copies.every((copy) =>
        copy.expected.rejectedBehind.some((passed) => passed.at(-1) === nearest),
      );
      if (neverWell)
        return "neither it nor a copy came well through a dedup, and it is not among the dead letters";
    }
    return undefined;
  }

  /** The first message that is not settled, in the order of feeding. */
  firstMissing(): { readonly fed: Fed; readonly what: string } | undefined {
    for (const fed of this.fed.values()) {
      const what = this.missing(fed);
      if (what !== undefined) return { fed, what };
    }
    return undefined;
  }

  isAcked(uid: string): boolean {
    return this.#acked.has(uid);
  }

  /**
   * Messages of one key and source arrive by one path in the order they were fed. Where a dedup can let a later
   * copy stand for an earlier one, ids of several copies tell nothing.
   */
  checkOrder(): void {
    for (const [line, arrivals] of this.#arrivals) {
      let newest: Fed | undefined;
      for (const fed of arrivals) {
        const place = fed.expected.at.find(({ sink, path }) => line.startsWith(`${placeOf(sink, path)} `));
        if (place?.ordered !== true) break;
        if (this.#copies.get(fed.id)!.length > 1) continue;
        if (newest !== undefined && newest.number > fed.number) {
          throw new Anomaly("order-inversion", `${fed.uid} first arrives after ${newest.uid} in ${line}`);
        }
        newest = fed;
      }
    }
  }

  /** By sink and path: how many writes there are beyond what the topology makes of what was fed. */
  excess(): ReadonlyMap<string, number> {
    const beyond = new Map<string, number>();
    for (const [at, times] of this.#stored) {
      const [place, id] = [at.slice(0, at.lastIndexOf(" ")), at.slice(at.lastIndexOf(" ") + 1)];
      const most = this.#copies.get(id)!.reduce((sum, { expected }) => sum + expected.times, 0);
      if (times > most) beyond.set(place, (beyond.get(place) ?? 0) + times - most);
    }
    return beyond;
  }

  /** Most writes that one message makes at one place. */
  get mostTimes(): number {
    return Math.max(1, ...[...this.fed.values()].map(({ expected }) => expected.times));
  }

  /** No copy of a message arrives more often than its topology makes of it. */
  checkRepeats(): void {
    for (const [at, times] of this.#stored) {
      const id = at.slice(at.lastIndexOf(" ") + 1);
      const copies = this.#copies.get(id)!;
      const most = copies.reduce((sum, { expected }) => sum + expected.times, 0);
      if (times > most) {
        throw new Anomaly(
          "duplicate-beyond-bound",
          `${id} is ${times} times in ${at}, and was fed ${copies.length} times`,
        );
      }
    }
  }
}

function placeOf(sink: number, path: string): string {
  return `out${sink} by ${path}`;
}

/** The `uid` of a message's original bytes. What cannot be decoded is the uid itself. */
export function uidOf(bytes: Buffer | null): string {
  const text = bytes!.toString("latin1", 0, 60);
  return /^\{"uid":"([^"]+)"/.exec(text)?.[1] ?? text;
}
