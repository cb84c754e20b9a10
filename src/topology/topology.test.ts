import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { Operator } from "../component/operator.ts";
import { decode } from "../operators/decode.ts";
import { encode } from "../operators/encode.ts";
import { key } from "../operators/key.ts";
import {
  inertTopology as declare,
  inertConnection,
  inertSink,
  inertSource,
  inertStep,
} from "../testing/inert.ts";
import { compile } from "./compile.ts";
import { formatProblems } from "./problem.ts";
import { type MergedStream, merge, type Stream } from "./stream.ts";
import type { Topology } from "./topology.ts";

interface Order {
  readonly id: string;
  readonly customer: string;
  readonly amount: number;
}

interface Refund {
  readonly kind: "refund";
  readonly of: string;
}

interface Sale {
  readonly kind: "sale";
  readonly sku: string;
}

/** As `validate` does: from anything to what a schema says. */
const validate = <T>(): Operator<unknown, T> =>
  inertStep("validate") as Operator<never, unknown> as Operator<unknown, T>;
const filter = <T>(keep: (value: T) => boolean): Operator<T, T> =>
  inertStep<T>("filter", { options: { keep } });
const map = <T, U>(change: (value: T) => U): Operator<T, U> =>
  inertStep("map", { options: { change } }) as Operator<never, unknown> as Operator<T, U>;
const window = <T>(): Operator<T, T> => inertStep("batch");

const names = (topology: Topology) => {
  const { plan, problems } = compile(topology);
  assert.ok(plan, formatProblems(problems, import.meta.dirname));
  return plan.nodes.map(({ name }) => name);
};
const mistakes = (topology: Topology) =>
  compile(topology)
    .problems.filter(({ severity }) => severity === "error")
    .map(({ code, message }) => `${code}: ${message}`);

test("types flow from step to step", () => {
  const topology = declare("orders", (t) => {
    const orders: Stream<Order> = t.from(inertSource("orders")).pipe(
      decode("json"),
      validate<Order>(),
      key((o) => o.customer),
      filter((o) => o.amount > 0),
      window(),
    );
    // @ts-expect-error: orders are not refunds
    const refunds: Stream<Refund> = orders;
    refunds.to(inertSink("accepted"));
    t.deadLetters(inertSink("dead"));
  });
  assert.deepEqual(names(topology), [
    "orders",
    "decode-1",
    "validate-1",
    "key-1",
    "filter-1",
    "batch-1",
    "accepted",
  ]);
});

test("what does not fit is a compile error", () => {
  declare("orders", (t) => {
    const orders = t.from(inertSource("orders")).pipe(decode("json"), validate<Order>());
    // @ts-expect-error: there is no field "custmer"
    orders.pipe(key((o) => o.custmer));
    // @ts-expect-error: an amount is a number
    orders.pipe(filter((o) => o.amount.startsWith("1")));
    t.from(inertSource("other")).pipe(
      decode("json"),
      // @ts-expect-error: what JSON holds is unknown until it is validated
      key((o) => o.customer),
    );
    // @ts-expect-error: bytes are no orders
    t.from(inertSource("third")).pipe(key((o: Order) => o.customer));
    orders.pipe(
      // @ts-expect-error: text is encoded from text, and this is a number
      map((o) => o.amount),
      encode("text"),
    );
    // @ts-expect-error: decoded values are not decoded again
    orders.pipe(decode("json"));
    // @ts-expect-error: a source is no sink
    orders.to(inertSource("fourth"));
    // @ts-expect-error: a sink is no source
    t.from(inertSink("fifth"));
    // @ts-expect-error: "sixth" is no option
    orders.to(inertSink("sixth"), { sixth: true });
  });
});

test("types flow through more steps than twelve in two pipes, and through an empty one", () => {
  const topology = declare("long", (t) => {
    const numbers: Stream<number> = t
      .from(inertSource("in"))
      .pipe(
        decode("json"),
        validate<Order>(),
        filter((o) => o.amount > 1),
        filter((o) => o.amount > 2),
        filter((o) => o.amount > 3),
        filter((o) => o.amount > 4),
        filter((o) => o.amount > 5),
        filter((o) => o.amount > 6),
        filter((o) => o.amount > 7),
        filter((o) => o.amount > 8),
        map((o) => o.id),
        map((id) => id.length),
      )
      .pipe()
      .pipe(filter((n) => n > 12));
    numbers.to(inertSink("out"));
    t.deadLetters(inertSink("dead"));
  });
  assert.equal(names(topology).length, 15);
});

test("a route gives a stream for each branch, of the type that its test leaves", () => {
  const topology = declare("routed", (t) => {
    const events = t.from(inertSource("events")).pipe(decode("json"), validate<Refund | Sale>());
    const { refunds, sales, rest } = events.route(
      {
        refunds: (e) => e.kind === "refund",
        sales: (e, message) => message.key !== null && e.kind === "sale",
      },
      { otherwise: "rest" },
    );
    refunds.pipe(key((e) => e.of)).to(inertSink("refunds"));
    // @ts-expect-error: the test asks for more than the kind, so it does not narrow
    sales.pipe(key((e) => e.sku)).to(inertSink("sales"));
    rest.pipe(key((e) => e.kind)).to(inertSink("rest"));
    t.deadLetters(inertSink("dead"));
  });
  const { plan } = compile(topology);
  assert.deepEqual(
    plan?.nodes.flatMap(({ name, inputs }) =>
      inputs.flatMap(({ node, branch }) => (branch === undefined ? [] : [`${node}.${branch} → ${name}`])),
    ),
    ["route-1.refunds → key-1", "route-1.sales → key-2", "route-1.rest → key-3"],
  );
  declare("typo", (t) => {
    const branches = t.from(inertSource("events")).route({ big: (bytes) => bytes !== null });
    // @ts-expect-error: there is no branch "bgi"
    assert.equal(branches.bgi, undefined);
  });
});

test("a merged stream carries either type; using a stream twice gives every use all messages", () => {
  const topology = declare("merged", (t) => {
    const sales = t.from(inertSource("sales")).pipe(decode("json"), validate<Sale>());
    const refunds = t.from(inertSource("refunds")).pipe(decode("json"), validate<Refund>());
    const all: Stream<Sale | Refund> = merge(sales, refunds);
    all.pipe(key((e) => e.kind)).to(inertSink("all"));
    const again = t.merge(sales, refunds);
    // @ts-expect-error: only a sale has a sku
    again.pipe(key((e) => e.sku)).to(inertSink("skus"));
    const later = t.merge(sales);
    later.add(t.from(inertSource("more")).pipe(decode("json"), validate<Sale>()));
    // @ts-expect-error: a refund is no sale
    later.add(refunds);
    later.pipe(key((e) => e.sku)).to(inertSink("later"));
    t.deadLetters(inertSink("dead"));
  });
  const { plan } = compile(topology);
  assert.deepEqual(
    plan?.nodes.filter(({ kind }) => kind === "merge").map(({ inputs }) => inputs.map(({ node }) => node)),
    [
      ["validate-1", "validate-2"],
      ["validate-1", "validate-2"],
      ["validate-1", "validate-3", "validate-2"],
    ],
  );
});

test("names: the author's, a target's, or the verb with a number that later steps do not change", () => {
  const elsewhere = { connection: inertConnection({ address: "elsewhere" }) };
  const topology = declare("named", (t) => {
    const one = t.from(inertSource("orders")).as("shop").pipe(inertStep("filter"), inertStep("filter"));
    one.as("checked").pipe(inertStep("dedup"), inertStep("filter")).to(inertSink("orders", elsewhere));
    one.to(inertSink("orders", elsewhere));
    one.to(inertSink("orders", elsewhere), { name: "copy" });
    one.pipe(inertStep("filter")).as("filter-2").to(inertSink(""));
  });
  assert.deepEqual(names(topology), [
    "shop",
    "filter-1",
    "checked",
    "dedup-1",
    "filter-3",
    "orders",
    "orders-2",
    "copy",
    "filter-2",
    "sink",
  ]);
});

test("names that are no names, and a second name for one step, are mistakes", () => {
  const topology = declare("sp ace", (t) => {
    t.from(inertSource("a")).as("b c").as("one").as("one").as("two").to(inertSink("d"), { name: "" });
    t.from(inertSource("e"))
      .as(undefined as unknown as string)
      .to(inertSink("f"), { name: "one" });
  });
  assert.deepEqual(mistakes(topology), [
    'option-invalid: the name of a topology cannot be "sp ace"',
    'option-invalid: a name cannot be "b c"',
    'topology-duplicate-name: "one" cannot be named "two" as well',
    'option-invalid: a name cannot be ""',
    "option-invalid: a name cannot be undefined",
    `topology-duplicate-name: two steps are named "one", the other one in line ${lineOf('.as("b c")')}`,
  ]);
});

test("a stream of another topology, or one used too late, is a mistake of whoever uses it", () => {
  let leaked: Stream<unknown> | undefined;
  let joined: MergedStream<unknown> | undefined;
  let builder: Parameters<Parameters<typeof declare>[1]>[0] | undefined;
  const first = declare("first", (t) => {
    builder = t;
    leaked = t.from(inertSource("a"));
    leaked.to(inertSink("b"));
    joined = t.merge(leaked);
    joined.to(inertSink("l"));
  });
  const second = declare("second", (t) => {
    t.from(inertSource("c")).to(inertSink("d"));
    leaked!
      .pipe(inertStep("filter"))
      .route({ x: () => true })
      .x.as("late")
      .to(inertSink("e"));
    t.merge(leaked!).to(inertSink("f"));
    builder!.from(inertSource("g")).to(inertSink("h"));
    joined!.add(leaked!);
  });
  assert.deepEqual(mistakes(first), []);
  assert.deepEqual(mistakes(second), [
    "topology-foreign-stream: a stream of another topology is used",
    "topology-foreign-stream: a stream of another topology is used",
    "topology-foreign-stream: a topology is added to outside of the function that declares it",
    "topology-foreign-stream: a stream of another topology is used",
  ]);
  leaked!.to(inertSink("i"));
  merge(leaked!).to(inertSink("j"));
  assert.deepEqual(mistakes(first), [
    "topology-foreign-stream: a stream is used after its topology was declared",
    "topology-foreign-stream: a stream is used after its topology was declared",
  ]);
});

test("what is not what it should be is named for what it is, and nothing is thrown", () => {
  const nothing = undefined as never;
  const topology = declare("wrong", (t) => {
    t.from(nothing).to(inertSink("a"));
    t.from(inertSink("b") as never).to(inertSink("c"));
    const stream = t.from(inertSource("d"));
    stream.pipe(inertStep as never, inertSource("e") as never, nothing).to("f" as never);
    stream.to(inertSink("g"), { audit: inertSource("h") as never });
    t.merge(stream, 7 as never).to(inertSink("i"));
    t.merge().to(inertSink("j"));
    t.deadLetters({} as never);
  });
  assert.deepEqual(mistakes(topology), [
    "option-invalid: from() takes a source, and was given undefined",
    "option-invalid: from() takes a source, and was given a sink",
    "option-invalid: pipe() takes operators, and number 1 is a function",
    "option-invalid: pipe() takes operators, and number 2 is a source",
    "option-invalid: pipe() takes operators, and number 3 is undefined",
    "option-invalid: to() takes a sink, and was given a string",
    "option-invalid: to() takes a sink as audit, and was given a source",
    "option-invalid: merge() takes streams, and was given a number",
    "option-missing: merge() was given no stream",
    "option-invalid: deadLetters() takes a sink, and was given another object",
  ]);
});

test("an error thrown while declaring is a problem at its line, and hides no mistake made before", () => {
  const topology = declare("throws", (t) => {
    t.from(
      inertSource("a", { problems: [{ code: "option-unknown", message: "no such option", remedy: "" }] }),
    );
    (undefined as unknown as { topic: string }).topic.trim();
  });
  const { plan, problems } = compile(topology);
  assert.equal(plan, undefined);
  assert.deepEqual(
    problems.map(({ code, location }) => [code, location?.line]),
    [
      ["option-unknown", lineOf("no such option")],
      ["author-error", lineOf("topic.trim()")],
    ],
  );
});

test("an asynchronous declaration is refused", () => {
  const topology = declare("async", async (t) => {
    t.from(inertSource("a"));
  });
  assert.deepEqual(mistakes(topology), [
    "option-invalid: the function that declares a topology is asynchronous",
  ]);
});

/** The line of this file where `text` stands first. */
function lineOf(text: string): number {
  const lines = readFileSync(import.meta.filename, "utf8").split("\n");
  return lines.findIndex((line) => line.includes(text)) + 1;
}
