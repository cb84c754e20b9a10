/** An alarm stops publishing to a whole server. Where a run also consumes there, that is a deadlock. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { testContext } from "../../testing/context.ts";
import type { Role } from "./driver.ts";
import { EmbeddedRabbitmq } from "./drivers/embedded/broker.ts";
import { embeddedDriver } from "./drivers/embedded/driver.ts";
import { Link } from "./link.ts";
import { readRabbitmqOptions } from "./options.ts";

/** A link that publishes to the vhost "messaging" of a server, and another one of the same run. */
async function alarmed(other: { readonly role: Role; readonly url: string }, context = testContext()) {
  const { clock } = context;
  const broker = new EmbeddedRabbitmq(clock);
  broker.feed("out", []);
  const linkTo = (url: string, role: Role, of = context) => {
    const { broker: settings, declarations } = readRabbitmqOptions({ url });
    const link = new Link(embeddedDriver(broker), role, settings!, declarations, of);
    link.acquire();
    return link;
  };
  const publishing = linkTo("amqp://one/messaging", "publish");
  const otherLink = linkTo(other.url, other.role);
  await clock.run(20);
  const connection = await publishing.connected();
  const publisher = await open(connection.openPublisher(silent), clock);
  broker.setAlarm("low on memory");
  publisher.publish("", "out", Buffer.from("x"), { headers: {}, mandatory: false });
  await clock.run(4_900);
  assert.equal(publishing.blocked, "low on memory");
  assert.equal(publishing.deadlock, undefined);
  await clock.run(200);
  return { context, clock, broker, publishing, otherLink, linkTo };
}

const silent = { closed() {}, confirmed() {}, returned() {}, drained() {} };

async function open<T>(opening: Promise<T>, clock: { run(ms: number): Promise<void> }): Promise<T> {
  await clock.run(1);
  return opening;
}

test("an alarm of a server that the run also consumes from is named as a deadlock, in any vhost", async () => {
  const { context, clock, broker, publishing } = await alarmed({
    role: "consume",
    url: "amqp://one/gateway",
  });
  assert.match(
    publishing.deadlock ?? "",
    /^watermark deadlock: an alarm \(low on memory\) keeps one:5672 from/,
  );
  assert.equal(context.counted.get("watermark_deadlocks_total"), 1);
  assert.match(publishing.errors.list[0]?.message ?? "", /watermark deadlock/);
  const [line] = context.logged.filter((text) => text.startsWith("error watermark deadlock"));
  assert.match(line ?? "", /two servers, and a gate on the source/);
  broker.setAlarm(undefined);
  await clock.run(10);
  assert.equal(publishing.deadlock, undefined);
});

test("an alarm of another server is none, nor one of a server that is only looked at", async () => {
  for (const other of [
    { role: "consume", url: "amqp://two/gateway" },
    { role: "check", url: "amqp://one/messaging" },
  ] as const) {
    const { publishing, context } = await alarmed(other);
    assert.equal(publishing.deadlock, undefined);
    assert.equal(context.counted.get("watermark_deadlocks_total"), undefined);
  }
});

test("a consumer of another run is not meant, nor one that has gone", async () => {
  const context = testContext();
  const { clock, broker, publishing, otherLink, linkTo } = await alarmed(
    { role: "consume", url: "amqp://two/gateway" },
    context,
  );
  linkTo("amqp://one/gateway", "consume", { ...testContext(), clock });
  const gone = linkTo("amqp://one/gateway", "consume");
  await clock.run(20);
  const releasing = Promise.all([gone.release(clock.now()), otherLink.release(clock.now())]);
  await clock.run(20);
  await releasing;
  broker.setAlarm(undefined);
  await clock.run(10);
  broker.setAlarm("low on disk");
  const publisher = await open((await publishing.connected()).openPublisher(silent), clock);
  publisher.publish("", "out", Buffer.from("x"), { headers: {}, mandatory: false });
  await clock.run(10_000);
  assert.equal(publishing.blocked, "low on disk");
  assert.equal(publishing.deadlock, undefined);
});
