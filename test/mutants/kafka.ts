import type { Mutant } from "./mutants.ts";

/** Kafka's source and sink. */
export const kafka: readonly Mutant[] = [
  {
    name: "kafka: what was received is committed",
    breaks: "A1",
    file: "src/connectors/kafka/source.ts",
    text: "      const { checkpoint } = owned.lane;\n",
    becomes: "      const checkpoint = owned.lane.position;\n",
    killer: {
      file: "test/properties/kafka-relay.test.ts",
      test: "a relay between two topics keeps its promises under any schedule of faults, rebalances eager",
    },
  },
  {
    name: "kafka: a revoked partition keeps its lane",
    breaks: "F1",
    file: "src/connectors/kafka/source.ts",
    text: "      const owned = this.#owned.get(keyOf(partition));\n      if (owned !== undefined) this.#end(owned);",
    becomes: "",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "a partition that is revoked ends at once: its messages are returned and what they become settles nothing",
    },
  },
  {
    name: "kafka: a partition assigned anew keeps its lane",
    breaks: "F1",
    file: "src/connectors/kafka/source.ts",
    text: " if (!kept.has(key) || renewed.has(key)) this.#end(owned);",
    becomes: " if (!kept.has(key)) this.#end(owned);",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "a partition that is assigned anew has a new lane, one that is kept goes on with its own",
    },
  },
  {
    name: "kafka: a failed commit is forgotten",
    breaks: "F5",
    file: "src/connectors/kafka/source.ts",
    text: "          failed = !fenced || moved.some(({ owned }) => this.#owned.get(keyOf(owned)) === owned);",
    becomes: "          failed = !fenced && moved.length < 0;",
    killer: {
      file: "test/properties/kafka-relay.test.ts",
      test: "stopped and started again, with requests lost and batches refused, it repeats nothing",
    },
  },
  {
    name: "kafka: a commit that failed counts as saved",
    breaks: "G",
    file: "src/connectors/kafka/source.ts",
    text: "        (error) => {\n          // A fenced commit",
    becomes:
      "        (error) => {\n          for (const { owned, checkpoint } of moved) owned.committed = checkpoint;\n          // A fenced commit",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "a commit that failed is made again for as long as its partition is ours",
    },
  },
  {
    name: "kafka: commits overlap",
    breaks: "F2",
    file: "src/connectors/kafka/source.ts",
    text: "    while (this.#committing !== undefined) await this.#committing;\n",
    becomes: "",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "one commit is out at a time, and the next has all that settled meanwhile",
    },
  },
  {
    name: "kafka: offsets are skipped while fetched messages wait",
    breaks: "A1",
    file: "src/connectors/kafka/source.ts",
    text: "    if (this.#context.intake.waiting(owned.lane) === 0) owned.lane.skipTo(next);\n    else if (!owned.paused)",
    becomes:
      "    owned.lane.skipTo(next);\n    if (this.#context.intake.waiting(owned.lane) > 0 && !owned.paused)",
    killer: {
      file: "test/properties/kafka-relay.test.ts",
      test: "stopped and started again, with requests lost and batches refused, it repeats nothing",
    },
  },
  {
    name: "kafka: a passed gap is skipped while fetched messages wait",
    breaks: "A1",
    file: "src/connectors/kafka/source.ts",
    text: "    owned.next = next;\n    if (this.#context.intake.waiting(owned.lane) === 0) owned.lane.skipTo(next);\n  }",
    becomes: "    owned.next = next;\n    owned.lane.skipTo(next);\n  }",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "offsets that nobody sees are passed once everything before them was taken in and settled",
    },
  },
  {
    name: "kafka: a partition without credit is read on",
    breaks: "E1",
    file: "src/connectors/kafka/source.ts",
    text: "      owned.paused = true;\n      this.#subscription?.pause([owned]);",
    becomes: "      owned.paused = true;",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "a partition whose messages wait for credit is paused, once, and read on when they are taken in",
    },
  },
  {
    name: "kafka: a paused partition is never read on",
    breaks: "E3",
    file: "src/connectors/kafka/source.ts",
    text: "    if (!this.#stopped) this.#subscription?.resume([owned]);",
    becomes: "",
    killer: {
      file: "test/properties/kafka-relay.test.ts",
      test: "a relay between two topics keeps its promises under any schedule of faults, rebalances eager",
    },
  },
  {
    name: "kafka: lost messages are passed over unsaid",
    breaks: "A7",
    file: "src/connectors/kafka/source.ts",
    text: '    this.#context.meter.count("offsets_out_of_range_total");\n',
    becomes: "",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "what was to be read on from an offset that is gone is told, and begins anew or ends the run",
    },
  },
  {
    name: "kafka: after lost messages the old epoch goes on",
    breaks: "F1",
    file: "src/connectors/kafka/source.ts",
    text: "    this.#end(owned);\n    this.#epoch++;\n    this.#own(partition);\n    if (this.#stopped)",
    becomes: "    if (this.#stopped)",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "what was to be read on from an offset that is gone is told, and begins anew or ends the run",
    },
  },
  {
    name: "kafka: an unread partition is at its end",
    breaks: "A7",
    file: "src/connectors/kafka/source.ts",
    text: "        if (committed.get(partition) !== latest) return false;\n",
    becomes: "",
    killer: {
      file: "src/connectors/kafka/source.test.ts",
      test: "it is at its end when every partition was read to its end, here or by another member of the group",
    },
  },
  {
    name: "kafka: a second send for a partition that has one out",
    breaks: "B5",
    file: "src/connectors/kafka/sink.ts",
    text: "      if (queue.sending || piece === undefined) continue;",
    becomes: "      if (piece === undefined) continue;",
    killer: {
      file: "test/properties/kafka-relay.test.ts",
      test: "a relay between two topics keeps its promises under any schedule of faults, rebalances eager",
    },
  },
  {
    name: "kafka: what the answer does not name was written",
    breaks: "A5",
    file: "src/connectors/kafka/sink.ts",
    text: "          if (result === undefined)\n",
    becomes: "          if (result === undefined) continue;\n          if (result === null)\n",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "seed 001.5, 003.1: a partition that the answer does not name is not settled, and is sent again alone",
    },
  },
  {
    name: "kafka: an unknown outcome counts as written",
    breaks: "A5",
    file: "src/connectors/kafka/sink.ts",
    text: "      for (const queue of queues) if (!failed.has(queue)) failed.set(queue, unknown);",
    becomes: "      if (unknown.code === undefined) return;",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a partition has one batch outstanding, retries included, so order holds",
    },
  },
  {
    name: "kafka: a refused batch goes behind those after it",
    breaks: "B2",
    file: "src/connectors/kafka/sink.ts",
    text: "    queue.failures++;\n",
    becomes: "    queue.failures++;\n    queue.pieces.push(queue.pieces.shift()!);\n",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a batch too large is split until it fits, in order; a message too large by itself is refused alone",
    },
  },
  {
    name: "kafka: messages settle when they are sent",
    breaks: "A5",
    file: "src/connectors/kafka/sink.ts",
    text: "      queue.sending = true;\n",
    becomes:
      "      queue.sending = true;\n      for (let entry = piece.from; entry < piece.to; entry++) piece.batch.settle(entry, Outcome.delivered);\n",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a key always has one destination, the same object each time; partitions share a request",
    },
  },
  {
    name: "kafka: a message is blamed for a limit that was lowered",
    breaks: "I4",
    file: "src/connectors/kafka/sink.ts",
    text: "      if (size <= this.#limit || size <= this.#limitAtOpen) return false;",
    becomes: "      if (size <= this.#limit) return false;",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a message that fitted when the sink was opened is not to blame for a lower limit, and no batch is split in vain",
    },
  },
  {
    name: "kafka: the limit is not read again",
    breaks: "D8",
    file: "src/connectors/kafka/sink.ts",
    text: "    const piece = queue.pieces[0]!;\n    await this.#readLimit();",
    becomes: "    const piece = queue.pieces[0]!;",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "when the topic's limit has shrunk, the topic is sick, not the message: it waits",
    },
  },
  {
    name: "kafka: the second half of a split batch goes first",
    breaks: "B1",
    file: "src/connectors/kafka/sink.ts",
    text: "      { ...piece, to: middle, encoded: undefined },\n      { ...piece, from: middle, encoded: undefined },",
    becomes:
      "      { ...piece, from: middle, encoded: undefined },\n      { ...piece, to: middle, encoded: undefined },",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a batch too large is split until it fits, in order; a message too large by itself is refused alone",
    },
  },
  {
    name: "kafka: a split batch is done with its first half",
    breaks: "D6",
    file: "src/connectors/kafka/sink.ts",
    text: "    piece.write.open++;\n",
    becomes: "",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a write that was split is done when its last part is",
    },
  },
  {
    name: "kafka: a batch is split under an absurd limit",
    breaks: "D8",
    file: "src/connectors/kafka/sink.ts",
    text: "    if (this.#limit < absurdLimit) return false;\n    const size",
    becomes: "    const size",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a message that fitted when the sink was opened is not to blame for a lower limit, and no batch is split in vain",
    },
  },
  {
    name: "kafka: a refused message takes its neighbours along",
    breaks: "D6",
    file: "src/connectors/kafka/sink.ts",
    text: "    if (piece.to - piece.from > 1) {\n      this.#split(queue, piece);\n      return true;\n    }\n    piece.suspicion",
    becomes:
      "    if (piece.to - piece.from > 1) {\n      this.#refuseFirst(queue, invalidRecord(piece));\n      return true;\n    }\n    piece.suspicion",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "an invalid record is found by halving, and its neighbours get through in order",
    },
  },
  {
    name: "kafka: batches are resent without a wait",
    breaks: "J1",
    file: "src/connectors/kafka/sink.ts",
    text: "this.#context.random.next() * wait);",
    becomes: "0 * wait);",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "seed 001.5, 003.1: a partition that the answer does not name is not settled, and is sent again alone",
    },
  },
  {
    name: "kafka: the client of a sink that gave up opening stays open",
    breaks: "G",
    file: "src/connectors/kafka/opening.ts",
    text: "    await client.close(context.clock.now() + giveUpWithin);\n",
    becomes: "",
    killer: {
      file: "src/connectors/kafka/sink.test.ts",
      test: "a missing topic and refused credentials end the start; a broker that is away is waited for",
    },
  },
  {
    name: "keys move when a topic gains partitions, though they are to be kept",
    breaks: "B7",
    file: "src/connectors/kafka/sink.ts",
    text: '    if (policy === "accept") {',
    becomes: '    if (policy !== "fail") {',
    killer: {
      file: "src/connectors/kafka/partition-growth.test.ts",
      test: "a sink keeps its keys where they are unless told otherwise, and says that there are more partitions",
    },
  },
  {
    name: "a sink that is to fail when its topic grows writes on",
    breaks: "B7",
    file: "src/connectors/kafka/sink.ts",
    text: "    if (this.#failure !== undefined) return Promise.reject(this.#failure);\n",
    becomes: "",
    killer: {
      file: "src/connectors/kafka/partition-growth.test.ts",
      test: "fail: nothing is written once the topic has grown, and the run is told why",
    },
  },
  {
    name: "new partitions are never seen",
    breaks: "B7",
    file: "src/connectors/kafka/partition-growth.ts",
    text: "if (this.#stopped || now <= before) continue;",
    becomes: "if (this.#stopped || now >= before) continue;",
    killer: {
      file: "src/connectors/kafka/partition-growth.test.ts",
      test: "accept: keys go to all partitions from the growth on, as any other client's do",
    },
  },
  {
    name: "a source that is to fail when its topic grows reads on",
    breaks: "B7",
    file: "src/connectors/kafka/source.ts",
    text: 'if (onPartitionGrowth === "fail") {',
    becomes: "if (onPartitionGrowth === undefined) {",
    killer: {
      file: "src/connectors/kafka/partition-growth.test.ts",
      test: "fail: a source whose topic has grown ends the run, and what to do is said",
    },
  },
];
