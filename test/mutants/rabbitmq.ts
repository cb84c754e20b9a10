import type { Mutant } from "./mutants.ts";

/** RabbitMQ's source and sink. */
export const rabbitmq: readonly Mutant[] = [
  {
    name: "a stream is read like a queue",
    breaks: "A1",
    file: "src/connectors/rabbitmq/source.ts",
    text: "if (this.#consumption?.takeDoubt() !== true ||",
    becomes: "if (this.#consumption !== undefined ||",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "a stream is refused at its first message",
    },
  },
  {
    name: "a queue whose messages came out of a stream is taken for one",
    breaks: "A7",
    file: "src/connectors/rabbitmq/declare.ts",
    text: "if (setting === undefined || setting.name in settings) return false;",
    becomes: "if (setting === undefined || setting.name in settings) return true;",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "a queue is read on, though what it holds came out of a stream once",
    },
  },
  {
    name: "rabbitmq: what was received is acknowledged",
    breaks: "A1",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    intake.offer(lane, new Deliveries(arrived, clock.wall(), this.#options.keyFromRoutingKey));",
    becomes:
      "    intake.offer(lane, new Deliveries(arrived, clock.wall(), this.#options.keyFromRoutingKey));\n    this.#channel.ack(arrived.at(-1)!.fields.deliveryTag, true);",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "rabbitmq: a lost channel leaves its lane open",
    breaks: "F1",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    if (lane !== undefined) this.#context.intake.end(lane);\n",
    becomes: "    if (lane?.ended) this.#context.intake.end(lane);\n",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "rabbitmq: messages above a hole are never acknowledged",
    breaks: "E4",
    file: "src/connectors/rabbitmq/source.ts",
    text: "        if (!this.#closed && !this.#context.signal.aborted) this.#acknowledge(true);\n",
    becomes: "",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "rabbitmq: many messages above a hole wait for their time",
    breaks: "E4",
    file: "src/connectors/rabbitmq/source.ts",
    text: " || lane.settledAboveHole > this.#options.prefetch * individualPart;",
    becomes: ";",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "when they are more than a quarter of the prefetch they are acknowledged at once",
    },
  },
  {
    name: "rabbitmq: the prefetch is not set",
    breaks: "J2",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    await this.#channel.prefetch(this.#probing ? 1 : prefetch);\n",
    becomes: "    if (prefetch < 0) return;\n",
    killer: {
      file: "src/connectors/rabbitmq/source.property.test.ts",
      test: "a source acknowledges what is settled and nothing else, whatever happens in whatever order",
    },
  },
  {
    name: "rabbitmq: after a stop nothing is acknowledged",
    breaks: "G",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    this.#acknowledge(true);\n    await this.roundTrip();",
    becomes: "    await this.roundTrip();",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "stopping takes nothing more in; what settles is acknowledged, the rest returns at the close",
    },
  },
  {
    name: "rabbitmq: a stop closes the channel",
    breaks: "G",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    this.#arrived = [];\n    this.#cancel();\n    this.#ageTimer?.cancel();",
    becomes: "    this.end();\n    this.close();\n    this.#ageTimer?.cancel();",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "stopping takes nothing more in; what settles is acknowledged, the rest returns at the close",
    },
  },
  {
    name: "rabbitmq: a message may be unsettled for ever",
    breaks: "J3",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    this.#channel.close();\n  }\n\n  #forgetArrivals",
    becomes: "  }\n\n  #forgetArrivals",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "before the broker's consumer_timeout everything is given back once, and one message is tried",
    },
  },
  {
    name: "rabbitmq: after a channel was given up all comes at once",
    breaks: "J2",
    file: "src/connectors/rabbitmq/source.ts",
    text: "        this.#probing = consumption.recycled || (this.#probing && consumption.probing);\n",
    becomes: "",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "before the broker's consumer_timeout everything is given back once, and one message is tried",
    },
  },
  {
    name: "rabbitmq: a cancelled consumer stays silent",
    breaks: "J2",
    file: "src/connectors/rabbitmq/source.ts",
    text: '      if (ended !== "cancelled" || this.#stopped) continue;',
    becomes:
      '      if (ended === "cancelled") await new Promise(() => {});\n      if (ended !== "cancelled" || this.#stopped) continue;',
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "a deleted queue shows in status; a declared one is made again and read on",
    },
  },
  {
    name: "rabbitmq: a returned message was delivered",
    breaks: "A5",
    file: "src/connectors/rabbitmq/unconfirmed.ts",
    text: "    if (tag >= this.#head && tag < this.#tail) this.#returned[tag & this.#mask] = 1;\n",
    becomes: "",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: a refused message was delivered",
    breaks: "A5",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      if (!taken) {",
    becomes: "      if (!taken && returned) {",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "a full queue is waited for, and its order is kept as well as may be",
    },
  },
  {
    name: "rabbitmq: what was unconfirmed when the channel was lost is forgotten",
    breaks: "J2",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      this.#sendAgain(write, unit);\n      this.#queue(write.route);",
    becomes: "      this.#queue(write.route);",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: what was unconfirmed when the channel was lost was delivered",
    breaks: "A5",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      this.#sendAgain(write, unit);\n      this.#queue(write.route);",
    becomes: "      this.#finish(write, write.delivered(unit));\n      this.#queue(write.route);",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: a confirm of several confirms one",
    breaks: "A7",
    file: "src/connectors/rabbitmq/unconfirmed.ts",
    text: "    for (let each = multiple ? this.#head : Math.max(tag, this.#head); each <= last; each++)",
    becomes: "    for (let each = multiple ? last : Math.max(tag, this.#head); each <= last; each++)",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: a confirm confirms all before it",
    breaks: "A5",
    file: "src/connectors/rabbitmq/unconfirmed.ts",
    text: "    for (let each = multiple ? this.#head : Math.max(tag, this.#head); each <= last; each++)",
    becomes: "    for (let each = this.#head; each <= last; each++)",
    killer: {
      file: "src/connectors/rabbitmq/unconfirmed.test.ts",
      test: "a confirm answers for one message, or with multiple for all up to it, and for each once",
    },
  },
  {
    name: "rabbitmq: messages are sent again after later ones",
    breaks: "J2",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "    write.sendAgain(unit);\n    write.route.cursor = 0;",
    becomes: "    write.sendAgain(unit);",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: messages sent again are not put in order",
    breaks: "J2",
    file: "src/connectors/rabbitmq/write.ts",
    text: "    if (last !== undefined && this.#range(last).from > this.#range(unit).from) {",
    becomes: "    if (last === unit) {",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: publishes are not mandatory",
    breaks: "A5",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      mandatory: this.#options.mandatory ?? true,",
    becomes: "      mandatory: this.#options.mandatory ?? false,",
    killer: {
      file: "src/connectors/rabbitmq/sink.property.test.ts",
      test: "a sink delivers each message in its order, and refuses only what no queue takes, whatever breaks",
    },
  },
  {
    name: "rabbitmq: publishes are not persistent",
    breaks: "A5",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      persistent: this.#options.persistent ?? true,",
    becomes: "      persistent: this.#options.persistent ?? false,",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "after a refusal one message at a time is tried, and messages are persistent",
    },
  },
  {
    name: "rabbitmq: an alarm does not stop publishing",
    breaks: "E5",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      this.#setting.link.blocked === undefined &&\n",
    becomes: "",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "an alarm stops publishing and shows; its end resumes",
    },
  },
  {
    name: "rabbitmq: any number of messages are unconfirmed",
    breaks: "E1",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      (count === 0 || (count < this.#limit && bytes < this.#byteLimit))",
    becomes: "      (count === 0 || bytes < this.#byteLimit)",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "confirms settle a batch bit by bit",
    },
  },
  {
    name: "rabbitmq: any number of bytes are unconfirmed",
    breaks: "E1",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      (count === 0 || (count < this.#limit && bytes < this.#byteLimit))",
    becomes: "      (count === 0 || count < this.#limit)",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "no more are unconfirmed than allowed, by count and by bytes",
    },
  },
  {
    name: "rabbitmq: after a refusal all is sent at once",
    breaks: "B2",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "    route.window = 1;\n",
    becomes: "",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "after a refusal one message at a time is tried, and messages are persistent",
    },
  },
  {
    name: "rabbitmq: a lost queue is the message's fault",
    breaks: "I1",
    file: "src/connectors/rabbitmq/sink.ts",
    text: "      } else if (this.#options.queue !== undefined) {",
    becomes: "      } else if (write.ready === undefined) {",
    killer: {
      file: "src/connectors/rabbitmq/sink.test.ts",
      test: "the sink of a queue that vanishes waits for the queue: nothing is refused",
    },
  },
  {
    name: "rabbitmq: a frame is as long as its content",
    breaks: "A5",
    file: "src/connectors/rabbitmq/drivers/amqplib/publish-frames.ts",
    text: "const size = Math.min(most, content.length - from);",
    becomes: "const size = content.length - from;",
    killer: {
      file: "src/connectors/rabbitmq/drivers/amqplib/publish-frames.test.ts",
      test: "amqplib reads what was written: any properties, headers and contents, each message whole",
    },
  },
  {
    name: "rabbitmq: half a message stays in the buffer",
    breaks: "I3",
    file: "src/connectors/rabbitmq/drivers/amqplib/publish-frames.ts",
    text: "this.#at = start;\n      throw error;",
    becomes: "throw error;",
    killer: {
      file: "src/connectors/rabbitmq/drivers/amqplib/publish-frames.test.ts",
      test: "a message that AMQP cannot carry adds nothing",
    },
  },
  {
    name: "rabbitmq: what was given back for its age is read again while the sink is away",
    breaks: "A1",
    file: "src/connectors/rabbitmq/source.ts",
    text: "    if (this.#probing) await this.#downstreamAnswers();\n",
    becomes: "",
    killer: {
      file: "src/connectors/rabbitmq/source.test.ts",
      test: "what was given back for its age is not delivered again before the sinks answer, however long that takes",
    },
  },
];
