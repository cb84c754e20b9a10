// Fills the queue `pond-seq`, once, when the messaging broker is installed:
//
//     MESSAGING_URL=amqp://… node topologies/xfm/install.ts [how many ranges, 16] [identifiers in each, 1000000] [first, 1]
//
// Running it again, after a crash in the middle too, is harmless: a loader passes over a range that is taken already.
import { publishRanges } from "./pond-seq.ts";

const url = process.env.MESSAGING_URL ?? "amqp://127.0.0.1:5673/messaging";
const [count = 16, size = 1_000_000, start = 1] = process.argv.slice(2).map(Number);
if (![count, size, start].every((number) => Number.isSafeInteger(number) && number > 0)) {
  process.stderr.write("give whole numbers: install.ts [ranges] [identifiers in each] [first identifier]\n");
  process.exit(2);
}
await publishRanges(
  url,
  Array.from({ length: count }, (_, i) => ({ first: start + i * size, last: start + (i + 1) * size - 1 })),
);
process.stdout.write(`${count} ranges of ${size} identifiers are in pond-seq\n`);
