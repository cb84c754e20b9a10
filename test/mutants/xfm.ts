import type { Mutant } from "./mutants.ts";

const identifiers = "topologies/xfm/identifiers.test.ts";
const ownRanges = "seed 004.5: no identifier is given out twice and none is lost, whatever is killed when";
const gate = "src/connectors/rabbitmq/depth-gate.test.ts";
const writer = "src/connectors/writer/writer.test.ts";

/** Gates, deadlocks, what is taken once, writers; and the identifiers of the XFM topologies. */
export const xfm: readonly Mutant[] = [
  {
    name: "gate: it opens as soon as it would not close",
    breaks: "E5",
    file: "src/connectors/rabbitmq/depth-gate.ts",
    text: ' || (this.#state === "closed" && depth > openAt)',
    becomes: "",
    killer: {
      file: gate,
      test: "it closes at closeAt and opens at openAt: between the two it stays as it was",
    },
  },
  {
    name: "gate: what arrives is taken in though it is closed",
    breaks: "E5",
    file: "src/connectors/rabbitmq/source.ts",
    text: " || !this.#options.mayTakeIn()",
    becomes: "",
    killer: {
      file: gate,
      test: "it closes at closeAt and opens at openAt: between the two it stays as it was",
    },
  },
  {
    name: "gate: a consumer is started though it is closed",
    breaks: "E5",
    file: "src/connectors/rabbitmq/source.ts",
    text: "      await this.#gateOpens(consumption);\n",
    becomes: "",
    killer: {
      file: gate,
      test: "what is held and taken back by the broker is not asked for again before the gate opens",
    },
  },
  {
    name: "gate: what was held back is forgotten",
    breaks: "A7",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    if (!this.#stopped && !this.#closed) this.#offer();\n",
    becomes: "",
    killer: {
      file: gate,
      test: "it closes at closeAt and opens at openAt: between the two it stays as it was",
    },
  },
  {
    name: "deadlock: another vhost of the same server is not seen",
    breaks: "A7",
    file: "src/connectors/rabbitmq/link.ts",
    text: "link.#broker.host === host && link.#broker.port === port",
    becomes: "link.#broker.address === this.#broker.address",
    killer: {
      file: "src/connectors/rabbitmq/link.test.ts",
      test: "an alarm of a server that the run also consumes from is named as a deadlock, in any vhost",
    },
  },
  {
    name: "take: the message is acknowledged before it is used",
    breaks: "A1",
    file: "src/connectors/rabbitmq/take.ts",
    text: "    const result = await use(delivery.content);\n",
    becomes:
      "    channel.ack(delivery.fields.deliveryTag, false);\n    await channel.prefetch(1);\n    const result = await use(delivery.content);\n",
    killer: {
      file: "src/connectors/rabbitmq/take.test.ts",
      test: "one message is taken, and it is gone once its use is through",
    },
  },
  {
    name: "take: nobody waits for the acknowledgement to be taken",
    breaks: "A1",
    file: "src/connectors/rabbitmq/take.ts",
    text: "    await channel.prefetch(1);\n    return result;",
    becomes: "    return result;",
    killer: {
      file: "src/connectors/rabbitmq/take.test.ts",
      test: "a connection that breaks before the acknowledgement was taken gives the message back",
    },
  },
  {
    name: "writer: messages are delivered before they are stored",
    breaks: "A1",
    file: "src/connectors/writer/sink.ts",
    text: "      await this.#attempt(batch, entries);\n",
    becomes: "      batch.settleAll(Outcome.delivered);\n      await this.#attempt(batch, entries);\n",
    killer: { file: writer, test: "messages are delivered when the write resolves, and not before" },
  },
  {
    name: "writer: whatever it throws blames the message",
    breaks: "I1",
    file: "src/connectors/writer/sink.ts",
    text: 'return error instanceof MillraceError && error.class === "business";',
    becomes: "return error instanceof Error;",
    killer: { file: writer, test: "a process that is unwell ends the run, and nothing is settled" },
  },
  {
    name: "writer: one message at fault takes the batch with it",
    breaks: "I4",
    file: "src/connectors/writer/sink.ts",
    text: "return entries.length === 1 ? [refusalOf(0, error)] : this.#storeEach(batch, entries);",
    becomes: "return entries.map((entry) => refusalOf(entry, error));",
    killer: {
      file: writer,
      test: "a message that is blamed is refused alone, and its neighbours are stored in order",
    },
  },
  {
    name: "xfm: a range may be two ponds'",
    breaks: "B8",
    file: "topologies/xfm/lake.ts",
    text: "      if (taken !== undefined) return false;\n",
    becomes: "      if (taken === undefined && first > last) return false;\n",
    killer: { file: identifiers, test: ownRanges },
  },
  {
    name: "xfm: what is returned stays the old pond's",
    breaks: "A7",
    file: "topologies/xfm/identifiers.ts",
    text: "    await lake.release({ first, last }, next, pond.id);\n",
    becomes: "",
    killer: { file: identifiers, test: ownRanges },
  },
  {
    name: "xfm: the pond does not look for ranges that a crash kept from it",
    breaks: "A7",
    file: "topologies/xfm/identifiers.ts",
    text: "for (const range of await this.#lake.rangesOf(this.#pond.id)) await this.#pond.add(range);",
    becomes: "await this.#lake.rangesOf(this.#pond.id);",
    killer: { file: identifiers, test: ownRanges },
  },
  {
    name: "xfm: a document is acknowledged when the pond has it",
    breaks: "A1",
    file: "topologies/xfm/loader.ts",
    text: "    await this.#pond.store(loads);\n    await this.#upload();",
    becomes: "    await this.#pond.store(loads);\n    this.#upload().catch(() => {});",
    killer: {
      file: "topologies/xfm/xfm.test.ts",
      test: "seed 004.4: a loader acknowledges what the lake has, and not what is in its pond alone",
    },
  },
  {
    name: "xfm: a document type is read on",
    breaks: "I1",
    file: "topologies/xfm/xml.ts",
    text: '  parser.on("doctype", () => refuse("it has a document type"));\n',
    becomes: "",
    killer: {
      file: "topologies/xfm/xfm.test.ts",
      test: "seed 004.7: each bad input ends in the queue error, quickly, with its bytes and the reason; its neighbours are loaded",
    },
  },
  {
    name: "xfm: a loader executes what it is told",
    breaks: "I1",
    file: "topologies/xfm/statements.ts",
    text: "    return values !== undefined && rows.every((row) => row.length === values - 1);",
    becomes: "    return values === undefined || rows.every((row) => row.length === values - 1);",
    killer: {
      file: "topologies/xfm/xfm.test.ts",
      test: "a loader executes the statements it knows and nothing else",
    },
  },
];
