import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { env } from "../component/environment.ts";
import type { Operator, ValueEffect } from "../component/operator.ts";
import type { OptionProblem } from "../component/options.ts";
import type { ErrorCode } from "../errors.ts";
import {
  inertTopology as declare,
  inertConnection,
  inertSink,
  inertSource,
  inertStep,
} from "../testing/inert.ts";
import { compile, compileAll } from "./compile.ts";
import type { Plan } from "./plan.ts";
import { formatProblems } from "./problem.ts";
import type { Stream } from "./stream.ts";
import type { Topology, TopologyBuilder } from "./topology.ts";

const step = (type: string, takes: ValueEffect["takes"], leaves: ValueEffect["leaves"], rejects = false) =>
  inertStep<unknown>(type, { effect: { takes, leaves }, rejects });
const decode = () => step("decode", "bytes", "value", true);
const encode = () => step("encode", "value", "bytes");
const map = () => step("map", "value", "changed");
const filter = () => step("filter", "value", "same");
const batch = (holds?: number) => inertStep<unknown>("batch", holds === undefined ? {} : { holds });
const compress = () => step("compress", "any", "same");
const unknownOption = (owner: string): OptionProblem => ({
  code: "option-unknown",
  message: `${owner} has no option "x"`,
  remedy: "use another",
});

const planOf = (topology: Topology): Plan => {
  const { plan, problems } = compile(topology);
  assert.ok(plan, formatProblems(problems, import.meta.dirname));
  return plan;
};
const codes = (topology: Topology) => compile(topology).problems.map(({ code }) => code);
const messages = (topology: Topology) => compile(topology).problems.map(({ message }) => message);

test("a sound topology becomes a plan: nodes in order, dead letters, and what every connection must have", () => {
  const [kafka, rabbit] = [inertConnection({ address: "kafka" }), inertConnection({ address: "rabbit" })];
  const audit = inertSink("log", { connection: kafka });
  const plan = planOf(
    declare("orders", (t) => {
      t.from(inertSource("in", { connection: rabbit, targetKind: "queue" }))
        .pipe(decode(), filter(), batch(), compress())
        .to(inertSink("out", { connection: kafka }), { audit });
      t.from(inertSource("more", { connection: rabbit })).to(inertSink("out", { connection: kafka }));
      t.deadLetters(inertSink("dead", { connection: kafka }));
    }),
  );
  assert.equal(plan.name, "orders");
  assert.deepEqual(
    plan.nodes.map(({ name, kind, inputs }) => [name, kind, inputs.map(({ node }) => node)]),
    [
      ["in", "source", []],
      ["decode-1", "operator", ["in"]],
      ["filter-1", "operator", ["decode-1"]],
      ["batch-1", "operator", ["filter-1"]],
      ["compress-1", "operator", ["batch-1"]],
      ["out", "sink", ["compress-1"]],
      ["more", "source", []],
      ["out-2", "sink", ["more"]],
    ],
  );
  assert.equal(plan.nodes.at(-1)?.kind === "sink" && plan.nodes.at(-1)?.location?.file, import.meta.filename);
  assert.equal(plan.deadLetters?.sink.name, "dead");
  assert.deepEqual(plan.warnings, []);
  const at = (text: string) => `compile.test.ts:${lineOf(text)}`;
  assert.deepEqual(
    plan.connections.map(({ connection, requirements }) => [connection.address, requirements]),
    [
      [
        "rabbit",
        [
          { kind: "queue", name: "in", role: "source", at: at('inertSource("in"') },
          { kind: "topic", name: "more", role: "source", at: at('inertSource("more"') },
        ],
      ],
      [
        "kafka",
        [
          { kind: "topic", name: "out", role: "sink", at: at('inertSink("out"') },
          { kind: "topic", name: "log", role: "sink", at: at('inertSink("log"') },
          { kind: "topic", name: "dead", role: "sink", at: at('inertSink("dead"') },
        ],
      ],
    ],
  );
});

test("a sink stops at the first failure where it is told to, whatever sources lead to it", () => {
  const { nodes } = planOf(
    declare("prefix", (t) => {
      t.merge(t.from(inertSource("a")), t.from(inertSource("b")))
        .pipe(decode(), inertStep<unknown>("dedup"), inertStep<unknown>("stage"))
        .to(inertSink("c"), { onFailure: "stopAtFirst" });
      t.from(inertSource("d")).to(inertSink("e"), { onFailure: "goOn" });
      t.deadLetters(inertSink("dead"));
    }),
  );
  const stops = nodes.flatMap((node) => (node.kind === "sink" ? [[node.name, node.stopAtFirst]] : []));
  assert.deepEqual(stops, [
    ["c", true],
    ["e", false],
  ]);
});

test("a plan cannot be changed", () => {
  const plan = planOf(
    declare("frozen", (t) => {
      const { b, c } = t.from(inertSource("a")).route({ b: () => true }, { otherwise: "c" });
      t.merge(b, c).pipe(decode()).to(inertSink("d"));
    }),
  );
  const parts: object[] = [plan, plan.nodes, plan.connections, plan.warnings];
  for (const node of plan.nodes) parts.push(node, node.inputs, ...node.inputs);
  for (const entry of plan.connections) parts.push(entry, entry.requirements, ...entry.requirements);
  parts.push(...plan.warnings);
  assert.equal(plan.warnings.length, 1);
  for (const part of parts) assert.ok(Object.isFrozen(part), JSON.stringify(part));
  assert.throws(() => (plan.nodes as unknown[]).push({}), TypeError);
});

/** Declarations with mistakes, and exactly what is to be said of them. */
const mistaken: readonly (readonly [
  what: string,
  declare: (t: TopologyBuilder) => void,
  said: readonly string[],
])[] = [
  ["nothing", () => {}, ['topology-empty: the topology "t" has no flow']],
  [
    "a source that nobody uses",
    (t) => {
      t.from(inertSource("a"));
    },
    ["topology-dangling: what comes out of a leads nowhere"],
  ],
  [
    "a pipe without an end",
    (t) => {
      t.from(inertSource("a")).pipe(filterAny(), filterAny());
    },
    ["topology-dangling: what comes out of filter-2 leads nowhere"],
  ],
  [
    "a branch without an end",
    (t) => {
      t.from(inertSource("a"))
        .route({ b: () => true }, { otherwise: "c" })
        .b.to(inertSink("d"));
    },
    ['topology-dangling: what comes out of the branch "c" of route-1 leads nowhere'],
  ],
  [
    "one fork of a fan-out without an end",
    (t) => {
      const stream = t.from(inertSource("a"));
      stream.to(inertSink("b"));
      stream.pipe(filterAny());
    },
    ["topology-dangling: what comes out of filter-1 leads nowhere"],
  ],
  [
    "a circle",
    (t) => {
      const merged = t.merge(t.from(inertSource("a"))).as("again");
      const checked = merged.pipe(filterAny());
      merged.add(checked);
      checked.to(inertSink("b"));
    },
    ["topology-cycle: messages would go in a circle: again → filter-1 → again"],
  ],
  [
    "a stream that feeds itself",
    (t) => {
      const merged = t.merge(t.from(inertSource("a")));
      merged.add(merged).to(inertSink("b"));
    },
    ["topology-cycle: messages would go in a circle: merge-1 → merge-1"],
  ],
  [
    "a topic that is read and written",
    (t) => {
      t.from(inertSource("a")).to(inertSink("a"));
    },
    ['topology-cycle: what is written to "a" comes back as input, for ever: a → a'],
  ],
  [
    "two flows that feed each other",
    (t) => {
      t.from(inertSource("a")).to(inertSink("b"));
      t.from(inertSource("b")).to(inertSink("a"));
    },
    ['topology-cycle: what is written to "a" comes back as input, for ever: a → b → a'],
  ],
  [
    "audit events that are read",
    (t) => {
      t.from(inertSource("a")).to(inertSink("b"), { audit: inertSink("a") });
    },
    ['topology-cycle: what is written to "a" comes back as input, for ever: a → a'],
  ],
  [
    "dead letters that are read",
    (t) => {
      t.from(inertSource("a")).to(inertSink("b"));
      t.deadLetters(inertSink("a"));
    },
    [
      'topology-cycle: dead letters go to "a", which the topology reads: a rejected message would come back for ever',
    ],
  ],
  [
    "one source read twice",
    (t) => {
      const source = inertSource("a");
      t.from(source).to(inertSink("b"));
      t.from(source).to(inertSink("c"));
    },
    ['topology-duplicate-name: the source "a" is read twice'],
  ],
  [
    "two steps with one name",
    (t) => {
      t.from(inertSource("a")).as("x").to(inertSink("b"), { name: "x" });
    },
    [`topology-duplicate-name: two steps are named "x", the other one in line ${lineOf('.as("x").to')}`],
  ],
  [
    "dead letters twice",
    (t) => {
      t.from(inertSource("a")).to(inertSink("b"));
      t.deadLetters(inertSink("c"));
      t.deadLetters(inertSink("d"));
    },
    ['topology-duplicate-name: the topology "t" has dead letters already'],
  ],
  [
    "rejections without dead letters",
    (t) => {
      t.from(inertSource("a"))
        .pipe(decode(), filter())
        .route({ b: () => true })
        .b.to(inertSink("c"));
    },
    [
      "dead-letters-missing: decode-1, route-1 may reject messages, and there are no dead letters: the first rejected message stops the run",
    ],
  ],
  [
    "several steps that need a decoded value",
    (t) => {
      t.from(inertSource("a")).pipe(filter(), filter()).to(inertSink("b"));
    },
    ["decode-missing: filter-1 works on decoded values, and gets the bytes of a"],
  ],
  [
    "a second decode",
    (t) => {
      t.from(inertSource("a")).pipe(decode(), decode()).to(inertSink("b"));
      t.deadLetters(inertSink("dead"));
    },
    ["decode-repeated: decode-2 works on bytes, and gets the values that decode-1 has decoded"],
  ],
  [
    "a changed value that is not encoded",
    (t) => {
      t.from(inertSource("a")).pipe(decode(), map(), batch()).to(inertSink("b"));
      t.deadLetters(inertSink("dead"));
    },
    ["encode-missing: map-1 changes the values, and they reach b without being encoded"],
  ],
  [
    "a changed value that passes a step which leaves decoded values",
    (t) => {
      const validate = step("validate", "value", "value");
      t.from(inertSource("a")).pipe(decode(), map(), validate).to(inertSink("b"));
      t.deadLetters(inertSink("dead"));
    },
    ["encode-missing: map-1 changes the values, and they reach b without being encoded"],
  ],
  [
    "values that are decoded in one branch of a merge only",
    (t) => {
      const stream = t.from(inertSource("a"));
      t.merge(stream, stream.pipe(decode())).pipe(filter()).to(inertSink("b"));
      t.deadLetters(inertSink("dead"));
    },
    ["decode-missing: filter-1 works on decoded values, and gets the bytes of a"],
  ],
  [
    "steps after batch",
    (t) => {
      t.from(inertSource("a")).pipe(batch(), filterAny(), compress(), batch()).to(inertSink("b"));
    },
    [
      "step-after-batch: filter-1 works on messages, and batch-1 before it hands on whole batches",
      "step-after-batch: batch-2 batches again what batch-1 has batched",
    ],
  ],
  [
    "compress twice",
    (t) => {
      t.from(inertSource("a")).pipe(compress(), batch(), compress(), compress()).to(inertSink("b"));
    },
    [
      "step-repeated: compress-2 says how to compress, and compress-1 before it has said so: only the last one would count",
      "step-repeated: compress-3 says how to compress, and compress-2 before it has said so: only the last one would count",
    ],
  ],
  [
    "a route after batch",
    (t) => {
      t.from(inertSource("a")).pipe(batch()).route({}, { otherwise: "b" }).b.to(inertSink("c"));
    },
    ["step-after-batch: route-1 parts messages, and batch-1 before it hands on whole batches"],
  ],
  [
    "batches used twice",
    (t) => {
      const stream = t.from(inertSource("a")).pipe(batch(), compress());
      stream.to(inertSink("b"));
      stream.to(inertSink("c"));
    },
    ["step-after-batch: the batches of batch-1 go to one sink, and c is one more use of them"],
  ],
  [
    "batches merged with themselves",
    (t) => {
      const stream = t.from(inertSource("a")).pipe(batch());
      t.merge(stream, stream).to(inertSink("b"));
    },
    ["step-after-batch: the batches of batch-1 go to one sink, and merge-1 is one more use of them"],
  ],
  [
    "a batch larger than the credit of one of its sources",
    (t) => {
      const small = inertSource("small", { credit: { messages: 99, bytes: 1, span: 1, chunk: 1 } });
      t.merge(t.from(inertSource("large")), t.from(small))
        .pipe(batch(100))
        .to(inertSink("b"));
    },
    ["batch-exceeds-credit: batch-1 waits for 100 messages, and small lets only 99 be in flight"],
  ],
  [
    "batches that together could take all credit",
    (t) => {
      t.from(inertSource("a", { lanes: 10 }))
        .pipe(batch(101))
        .to(inertSink("b"));
    },
    [
      "batch-may-starve: windows of 101 messages for each of 10 lanes could hold all 1000 that a lets be in flight: batches would then go out before they are full",
    ],
  ],
  [
    "unset variables",
    (t) => {
      t.from(inertSource(env("MILLRACE_TEST_UNSET"))).to(inertSink(env("MILLRACE_TEST_UNSET_TOO")));
    },
    [
      "env-missing: the environment variable MILLRACE_TEST_UNSET is not set",
      "env-missing: the environment variable MILLRACE_TEST_UNSET_TOO is not set",
    ],
  ],
  [
    "options of each kind of component, and of a connection that several of them share",
    (t) => {
      const connection = inertConnection({ problems: [unknownOption("broker")] });
      // Connectors may repeat the connection's problems in what is made from it.
      const of = (owner: string) => ({
        connection,
        problems: [unknownOption("broker"), unknownOption(owner)],
      });
      const shared = inertStep<unknown>("filter", { problems: [unknownOption("filter")] });
      const audit = inertSink("audit", of("audit"));
      const stream = t.from(inertSource("a", of("source"))).pipe(shared, shared);
      stream.to(inertSink("b", of("sink")), { audit });
      stream.to(inertSink("c", { connection }), { audit, ...{ loup: true } });
      stream.route({ x: () => true }, { otherwse: "y" } as object).x.to(inertSink("d"));
      t.deadLetters(inertSink("dead", of("dead letters")));
    },
    [
      'option-unknown: audit has no option "x"',
      'option-unknown: broker has no option "x"',
      'option-unknown: dead letters has no option "x"',
      'option-unknown: filter has no option "x"',
      'option-unknown: route has no option "otherwse"',
      'option-unknown: sink has no option "x"',
      'option-unknown: source has no option "x"',
      'option-unknown: to has no option "loup"',
    ],
  ],
  [
    "a sink that stops at the first failure behind a batch, and behind calls in the order of keys",
    (t) => {
      t.from(inertSource("a"))
        .pipe(inertStep<unknown>("mapAsync", { options: { order: "key" } }), batch())
        .to(inertSink("b"), { onFailure: "stopAtFirst" });
    },
    [
      "order-impossible: b stops at the first failure, and batch-1 would hand on several messages at once, of which it can write one alone",
      "order-impossible: b stops at the first failure, and mapAsync-1 lets messages of other keys go ahead",
    ],
  ],
  [
    "a sink that stops at the first failure where its source leads to another one, or by two ways to it",
    (t) => {
      const stream = t.from(inertSource("a"));
      stream.to(inertSink("b"), { onFailure: "stopAtFirst" });
      stream.to(inertSink("c"));
      const { d } = t.from(inertSource("e")).route({ d: () => true });
      d.to(inertSink("f"), { onFailure: "stopAtFirst" });
      t.deadLetters(inertSink("dead"));
    },
    [
      "order-impossible: b stops at the first failure, and the messages of a go several ways: behind one that fails, others would be written elsewhere",
      "order-impossible: f stops at the first failure, and the messages of route-1 go several ways: behind one that fails, others would be written elsewhere",
    ],
  ],
  [
    "a sink that stops at the first failure behind a dedup that raw code may give messages in any order",
    (t) => {
      t.from(inertSource("a"))
        .pipe(inertStep<unknown>("stage"), inertStep<unknown>("dedup"))
        .to(inertSink("b"), { onFailure: "stopAtFirst" });
    },
    [
      "order-impossible: b stops at the first failure, and the messages that dedup-1 gets from stage-1 may come in any order, and wait for each other for ever",
    ],
  ],
];

for (const [what, body, said] of mistaken) {
  test(`compile reports ${what}, and nothing else`, () => {
    const { plan, problems } = compile(declare("t", body));
    assert.deepEqual(problems.map(({ code, message }) => `${code}: ${message}`).sort(), [...said].sort());
    const failed = problems.some(({ severity }) => severity === "error");
    assert.equal(plan === undefined, failed);
    for (const { location, remedy } of problems) {
      assert.equal(location?.file, import.meta.filename);
      assert.notEqual(remedy, "");
    }
  });
}

test("a loop is one whatever names and connections lead to the place, and equal names are none", () => {
  const [one, other] = [inertConnection({ address: "one" }), inertConnection({ address: "other" })];
  const looped = declare("looped", (t) => {
    t.from(inertSource("q", { connection: one, places: ["/data/q"] })).to(
      inertSink("../data/q", { connection: other, places: ["/data/q"] }),
    );
  });
  assert.deepEqual(messages(looped), [
    'what is written to "../data/q" comes back as input, for ever: q → ../data/q',
  ]);
  const apart = declare("apart", (t) => {
    t.from(inertSource("q", { connection: one, places: ["/data/q"] })).to(
      inertSink("q", { connection: one, places: ["/other/q"] }),
    );
  });
  assert.deepEqual(messages(apart), []);
});

test("what a source needs for itself belongs to it alone, in one topology and in all that run together", () => {
  const claims = [{ place: "/data/c", what: 'the checkpoint "c"', remedy: "give each its own" }];
  const twice = declare("twice", (t) => {
    t.from(inertSource("a", { claims })).to(inertSink("b"));
    t.from(inertSource("c", { claims })).to(inertSink("d"));
  });
  const line = lineOf('inertSource("a", { claims })');
  assert.deepEqual(compile(twice).problems, [
    {
      severity: "error",
      code: "topology-conflict",
      message: `the checkpoint "c" is used by two sources, the other one in line ${line}`,
      remedy: "give each its own",
      location: { file: import.meta.filename, line: line + 1, column: 12 },
    },
  ]);
  const written = declare("written", (t) => {
    t.from(inertSource("a", { claims })).to(inertSink("out", { places: ["/data/c"] }));
    t.deadLetters(inertSink("dead", { places: ["/data/dead"] }));
  });
  assert.deepEqual(messages(written), ['the checkpoint "c" of a is also written to as out']);
  const alone = (name: string) =>
    declare(name, (t) => t.from(inertSource("a", { claims, places: ["/data/a"] })).to(inertSink("b")));
  const together = [alone("one"), alone("two")];
  for (const topology of together) assert.deepEqual(codes(topology), []);
  assert.deepEqual(
    compileAll(together).problems.map(({ code }) => code),
    ["topology-conflict"],
  );
  assert.equal(compileAll([twice]).problems.length, 1);
  // A source that is read twice is told as that.
  const reread = declare("reread", (t) => {
    const source = inertSource("a", { claims });
    t.from(source).to(inertSink("b"));
    t.from(source).to(inertSink("d"));
  });
  assert.deepEqual(codes(reread), ["topology-duplicate-name"]);
});

test("what could look like a mistake and is none", () => {
  const elsewhere = inertConnection({ address: "elsewhere" });
  const topology = declare("sound", (t) => {
    // Written and read, but not at the same place, not of the same kind, or with an end that its author knows.
    t.from(inertSource("a")).to(inertSink("a", { connection: elsewhere }));
    t.from(inertSource("b")).to(inertSink("b", { targetKind: "exchange" }));
    t.from(inertSource("c")).to(inertSink("c"), { loop: true });
    t.from(inertSource("d")).to(inertSink("e"));
    t.from(inertSource("e")).to(inertSink("f"));
    // A batch of exactly the credit, lanes that fit, and batches that meet only at their sink.
    const full = t.from(inertSource("g", { lanes: 10 })).pipe(batch(100), compress());
    t.merge(full, t.from(inertSource("h")).pipe(batch(1_000))).to(inertSink("i"));
    const later = t.merge();
    later.add(t.from(inertSource("n")).pipe(compress())).add(t.from(inertSource("o")).pipe(compress()));
    later.to(inertSink("p"));
    // Decoded bytes stand for the value until it is changed; what was encoded is bytes again.
    t.from(inertSource("j")).pipe(decode(), filter()).to(inertSink("k"));
    t.from(inertSource("l")).pipe(decode(), map(), encode(), decode()).to(inertSink("m"));
    t.deadLetters(inertSink("dead"));
  });
  assert.deepEqual(compile(topology).problems, []);
});

test("a broken declaration is not also blamed for what it did not get to", () => {
  const topology = declare("t", (t) => {
    t.from(inertSource("a")).pipe(decode());
    throw new Error("amqp://user:canary@host is away");
  });
  assert.deepEqual(messages(topology), ["the topology's code threw: amqp://***@host is away"]);
});

test("topologies that run together: all mistakes of all of them, and each name once", () => {
  const sound = (name: string) => declare(name, (t) => t.from(inertSource("a")).to(inertSink("b")));
  const { plans, problems } = compileAll([sound("one"), sound("two")]);
  assert.deepEqual(
    plans?.map(({ name }) => name),
    ["one", "two"],
  );
  assert.deepEqual(problems, []);
  const found = {
    severity: "warning",
    code: "file-unreadable",
    message: "m",
    remedy: "r",
    location: undefined,
  } as const;
  const failed = compileAll([sound("one"), declare("two", () => {}), sound("one")], [found]);
  assert.equal(failed.plans, undefined);
  assert.deepEqual(
    failed.problems.map(({ code }) => code),
    ["file-unreadable", "topology-duplicate-name", "topology-empty"],
  );
});

/** A graph by numbers: each step takes its input from one of the streams there are before it. */
interface Shape {
  readonly sources: number;
  readonly steps: readonly {
    readonly kind: "step" | "merge" | "route";
    readonly inputs: readonly number[];
  }[];
}

const shapes: fc.Arbitrary<Shape> = fc.record({
  sources: fc.integer({ min: 1, max: 4 }),
  steps: fc.array(
    fc.record({
      kind: fc.constantFrom("step", "merge", "route"),
      inputs: fc.array(fc.nat(1_000), { minLength: 1, maxLength: 4 }),
    }),
    { maxLength: 30 },
  ),
});

/** Declares the graph, with a sink wherever it would lead nowhere. */
function declareShape(t: TopologyBuilder, { sources, steps }: Shape): Stream<unknown>[] {
  const streams: Stream<unknown>[] = [];
  const open = new Set<Stream<unknown>>();
  const keep = (stream: Stream<unknown>) => {
    streams.push(stream);
    open.add(stream);
  };
  for (let i = 0; i < sources; i++) keep(t.from(inertSource(`source${i}`)));
  for (const { kind, inputs } of steps) {
    const taken = inputs.map((input) => streams[input % streams.length]!);
    if (kind === "merge") keep(t.merge(...taken));
    else if (kind === "step") keep(taken[0]!.pipe(filterAny()));
    else
      for (const branch of Object.values(
        taken[0]!.route({ a: () => true, b: () => true }, { otherwise: "c" }),
      ))
        keep(branch);
    for (const stream of kind === "merge" ? taken : taken.slice(0, 1)) open.delete(stream);
  }
  let sinks = 0;
  for (const stream of open) stream.to(inertSink(`sink${sinks++}`));
  return streams;
}

test("any graph without a circle compiles: every node once, named once, after all that it depends on", () => {
  fc.assert(
    fc.property(shapes, (shape) => {
      const topology = declare("any", (t) => {
        declareShape(t, shape);
      });
      const plan = planOf(topology);
      const place = new Map(plan.nodes.map(({ name }, index) => [name, index]));
      const declared =
        shape.sources + shape.steps.length + plan.nodes.filter(({ kind }) => kind === "sink").length;
      assert.equal(place.size, plan.nodes.length);
      assert.equal(plan.nodes.length, declared);
      for (const node of plan.nodes) {
        assert.equal(node.inputs.length === 0, node.kind === "source");
        for (const input of node.inputs) assert.ok(place.get(input.node)! < place.get(node.name)!);
      }
      const outlets = new Set(
        plan.nodes.flatMap(({ inputs }) => inputs.map(({ node, branch }) => `${node}.${branch}`)),
      );
      for (const node of plan.nodes) {
        if (node.kind === "sink") continue;
        const branches = node.kind === "route" ? node.router.branches : [undefined];
        for (const branch of branches) assert.ok(outlets.has(`${node.name}.${branch}`));
      }
    }),
  );
});

/** Each puts one mistake into a graph, beside whatever else is in it. */
const injections: Partial<
  Record<ErrorCode, (t: TopologyBuilder, streams: readonly Stream<unknown>[], n: number) => void>
> = {
  "topology-dangling": (_, streams, n) => streams[n % streams.length]!.pipe(filterAny()),
  "topology-cycle": (t, streams, n) => {
    const merged = t.merge(streams[n % streams.length]!);
    const way = merged.pipe(filterAny());
    merged.add(way);
    way.to(inertSink(`cycle${n}`));
  },
  "decode-missing": (_, streams, n) =>
    streams[n % streams.length]!.pipe(filter()).to(inertSink(`decode${n}`)),
  "decode-repeated": (_, streams, n) =>
    streams[n % streams.length]!.pipe(decode(), decode()).to(inertSink(`again${n}`)),
  "encode-missing": (_, streams, n) =>
    streams[n % streams.length]!.pipe(decode(), map()).to(inertSink(`encode${n}`)),
  "step-after-batch": (_, streams, n) =>
    streams[n % streams.length]!.pipe(batch(), filterAny()).to(inertSink(`batch${n}`)),
  "batch-outlasts-ack": (t, _, n) =>
    t
      .from(inertSource(`hasty${n}`, { ackWithin: 10 }))
      .pipe(inertStep<unknown>("batch", { holdsFor: 10 }))
      .to(inertSink(`late${n}`)),
  "batch-exceeds-credit": (t, _, n) =>
    t
      .from(inertSource(`little${n}`))
      .pipe(batch(1_001))
      .to(inertSink(`much${n}`)),
  "option-unknown": (t, _, n) =>
    t.from(inertSource(`odd${n}`, { problems: [unknownOption(`odd${n}`)] })).to(inertSink(`odder${n}`)),
  "option-invalid": (_, streams, n) => streams[n % streams.length]!.as(`no name ${n}`),
  "env-missing": (_t, _s, n) => env(`MILLRACE_TEST_UNSET_${n}`),
};

test("whatever mistakes are put into a graph, each is reported once", () => {
  const kinds = Object.keys(injections) as ErrorCode[];
  const mistakes = fc.array(fc.record({ kind: fc.constantFrom(...kinds), n: fc.nat(1_000) }), {
    maxLength: 8,
  });
  fc.assert(
    fc.property(shapes, mistakes, (shape, chosen) => {
      const topology = declare("any", (t) => {
        const streams = declareShape(t, shape);
        // By position, so that the same mistake made twice is two mistakes.
        chosen.forEach(({ kind, n }, index) => {
          injections[kind]!(t, streams, n * 10 + index);
        });
        t.deadLetters(inertSink("dead"));
      });
      assert.deepEqual(countOf(codes(topology)), countOf(chosen.map(({ kind }) => kind)));
    }),
  );
});

function countOf(codes: readonly ErrorCode[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const code of [...codes].sort()) counts[code] = (counts[code] ?? 0) + 1;
  return counts;
}

function filterAny<T>(): Operator<T, T> {
  return inertStep<T>("filter");
}

/** The line of this file where `text` stands first. */
function lineOf(text: string): number {
  const lines = readFileSync(import.meta.filename, "utf8").split("\n");
  return lines.findIndex((line) => line.includes(text)) + 1;
}
