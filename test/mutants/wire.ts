import type { Mutant } from "./mutants.ts";

const folder = "src/connectors/kafka/drivers/wire";
const decoding = `${folder}/record-batch/decode.test.ts`;
const producing = {
  file: `${folder}/producer.test.ts`,
  test: "what is acknowledged is stored, in order, and once unless the broker forgot the producer",
};

/** The Kafka driver that speaks the protocol itself. */
export const wire: readonly Mutant[] = [
  {
    name: "wire: a checksum that does not match is none",
    breaks: "A7",
    file: `${folder}/record-batch/decode.ts`,
    text: "!== bytes.readUInt32BE(start + at.crc)) {",
    becomes: "< 0) {",
    killer: {
      file: decoding,
      test: "damage is found: every flipped bit of what the checksum covers, and of the checksum",
    },
  },
  {
    name: "wire: what a transaction wrote before it was aborted is read",
    breaks: "A7",
    file: `${folder}/record-batch/decode.ts`,
    text: " || this.#abortedProducers.has(producerId);",
    becomes: ";",
    killer: { file: decoding, test: "of aborted transactions nothing is seen, of all others everything" },
  },
  {
    name: "wire: messages in a format of old pass for such as are read",
    breaks: "A7",
    file: `${folder}/record-batch/decode.ts`,
    text: "bytes[start + at.magic] !== magic",
    becomes: "bytes[start + at.magic]! > magic",
    killer: { file: decoding, test: "a message format other than 2 is an error, also where it is cut off" },
  },
  {
    name: "wire: a compressed batch may become anything",
    breaks: "E1",
    file: `${folder}/record-batch/decode.ts`,
    text: "maxBytes: this.#options.maxBytes ?? maxBatchBytes",
    becomes: "maxBytes: maxBatchBytes",
    killer: { file: decoding, test: "a compressed batch that is damaged inside, or too large, is an error" },
  },
  {
    name: "wire: what a broker says of a batch is not read where it says something of a record",
    breaks: "A7",
    file: `${folder}/produce-exchange.ts`,
    text: "const ofBatch = each.readNullableString();",
    becomes: "const ofBatch = ofRecord ?? each.readNullableString();",
    killer: {
      file: `${folder}/produce-exchange.test.ts`,
      test: "what a broker says about a record and about its batch is read, and what follows it too",
    },
  },
  {
    name: "wire: another batch takes the number of one whose outcome is unknown",
    breaks: "A5",
    file: `${folder}/producer.ts`,
    text: "if (!sequence.spent && (sequence.pending === undefined || sequence.pending === batch)) continue;",
    becomes: "if (!sequence.spent) continue;",
    killer: producing,
  },
  {
    name: "wire: the next batch's number does not count the messages of the last",
    breaks: "A5",
    file: `${folder}/producer.ts`,
    text: "sequence.next = (stamp.sequence + batch.count) % 2 ** 31;",
    becomes: "sequence.next = (stamp.sequence + 1) % 2 ** 31;",
    killer: {
      file: producing.file,
      test: "a broker that loses nothing knows the producer by one identity, and takes each batch at once",
    },
  },
  {
    name: "wire: a broker that understands too little is used all the same",
    breaks: "A7",
    file: `${folder}/requests.ts`,
    text: "if (range === undefined || version < request.oldest || version < range.min) {",
    becomes: "if (range === undefined) {",
    killer: {
      file: `${folder}/requests.test.ts`,
      test: "a broker that is too old, or too new, is refused at once, by name",
    },
  },
];
