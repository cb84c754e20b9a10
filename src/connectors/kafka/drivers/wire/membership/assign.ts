import type { AssignedTopic } from "./consumer-protocol.ts";

export interface Candidate {
  readonly member: string;
  readonly topics: readonly string[];
}

/**
 * Deals the partitions of all topics out to the members that read them, one after the other in the order of
 * their ids: numbers of partitions differ by one at most where all members read the same topics.
 */
export function assign(
  candidates: readonly Candidate[],
  partitionsOf: (topic: string) => number,
): ReadonlyMap<string, readonly AssignedTopic[]> {
  const members = [...candidates].sort((a, b) => (a.member < b.member ? -1 : 1));
  const shares = new Map(members.map(({ member }) => [member, new Map<string, number[]>()]));
  let turn = 0;
  for (const topic of [...new Set(members.flatMap(({ topics }) => topics))].sort()) {
    const readers = members.filter(({ topics }) => topics.includes(topic));
    for (let partition = 0; partition < partitionsOf(topic); partition++, turn++) {
      const share = shares.get(readers[turn % readers.length]!.member)!;
      const list = share.get(topic);
      if (list === undefined) share.set(topic, [partition]);
      else list.push(partition);
    }
  }
  return new Map(
    [...shares].map(([member, share]) => [
      member,
      [...share].map(([topic, partitions]) => ({ topic, partitions })),
    ]),
  );
}
