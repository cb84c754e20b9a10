// Takes a loader's pond out of service, for good, and returns what it did not use of its identifiers:
//
//     MESSAGING_URL=amqp://… POND_URL=… LAKE_URL=… node topologies/xfm/decommission.ts
//
// The loader must be stopped. What the lake does not have yet is uploaded first. After a crash, run it again.
import { returnUnused } from "./identifiers.ts";
import { Lake } from "./lake.ts";
import { Pond } from "./pond.ts";
import { publishRanges } from "./pond-seq.ts";

const messagingUrl = process.env.MESSAGING_URL ?? "amqp://127.0.0.1:5673/messaging";
const pond = await Pond.open(process.env.POND_URL ?? "sqlite:out/xfm/pond.sqlite");
const lake = await Lake.open(process.env.LAKE_URL ?? "sqlite:out/xfm/lake.sqlite");
try {
  for (const range of await lake.rangesOf(pond.id)) await pond.add(range);
  await pond.flush((documents) => lake.upload(documents));
  const returned = await returnUnused(pond, lake, (range) => publishRanges(messagingUrl, [range]));
  for (const { first, last } of returned) process.stdout.write(`returned ${first} to ${last}\n`);
  process.stdout.write(`pond ${pond.id} is closed\n`);
} finally {
  await lake.close();
  await pond.close();
}
