import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { secret } from "../component/secret.ts";
import {
  inertTopology as declare,
  inertConnection,
  inertSink,
  inertSource,
  inertStep,
} from "../testing/inert.ts";
import { compile } from "./compile.ts";
import { describePlan, drawingFormats } from "./describe.ts";
import type { Topology } from "./topology.ts";

const draw = (topology: Topology, format: (typeof drawingFormats)[number]) => {
  const { plan } = compile(topology);
  assert.ok(plan);
  return describePlan(plan, format);
};
const step = (type: string, options: Record<string, unknown> = {}, rejects = false) =>
  inertStep<unknown>(type, { options, rejects });

const orders = declare("orders", (t) => {
  t.from(inertSource("orders", { type: "kafka" }))
    .pipe(
      step("decode", { format: "json" }, true),
      step("validate", { schema: { type: "object" } }, true),
      step("key", { value: (o: { customer: string }) => o.customer }),
      step("dedup", { id: (o: { id: string }) => o.id, capacity: 100_000, ttl: "10m" }),
      step("batch", { count: 1_000, bytes: "1MiB", within: "50ms" }),
      step("compress", { codec: "zstd" }),
    )
    .to(inertSink("orders.accepted", { type: "kafka" }));
  t.deadLetters(inertSink("orders.dead", { type: "kafka" }));
});

test("a sink that stops at the first failure says so", () => {
  const prefix = declare("prefix", (t) => {
    t.from(inertSource("in")).to(inertSink("out"), { onFailure: "stopAtFirst" });
  });
  for (const format of drawingFormats) assert.match(draw(prefix, format), /inert out \(stopAtFirst\)/);
});

const branched = declare("branched", (t) => {
  const audit = inertSink("log");
  const stream = t.from(inertSource("in")).pipe(step("decode", { format: "text" }));
  const { big, rest } = stream.route({ big: () => true }, { otherwise: "rest" });
  big.pipe(step("batch", { count: 10 })).to(inertSink("big"), { audit });
  const all = t.merge(rest, t.from(inertSource("more")));
  all.to(inertSink("left"), { audit });
  all.pipe(step("map")).as("upper").pipe(step("filter")).to(inertSink("right"), { name: "last" });
});

test("a straight topology as text", () => {
  assert.equal(
    draw(orders, "text"),
    `kafka orders
│ decode (json)
│ validate
│ key (customer)
│ dedup (id, capacity 100000, ttl 10m)
│ batch (count 1000, bytes 1MiB, within 50ms)
│ compress (zstd)
▼ kafka orders.accepted

rejected
▼ kafka orders.dead
`,
  );
});

test("routes, fan-outs, merges and audits as text", () => {
  assert.equal(
    draw(branched, "text"),
    `inert in
│ decode (text)
│ route
├─ big
│  │ batch (count 10)
│  ▼ inert big (audit: inert log)
└─ rest
   ▼ merge-1

inert more
▼ merge-1

merge-1
├─▶ inert left (audit: inert log)
└─ upper: map
   │ filter
   ▼ last: inert right
`,
  );
});

test("a topology as Mermaid", () => {
  assert.equal(
    draw(orders, "mermaid"),
    `flowchart LR
  n1(["kafka orders"])
  n2["decode (json)"]
  n3["validate"]
  n4["key (customer)"]
  n5["dedup (id, capacity 100000, ttl 10m)"]
  n6["batch (count 1000, bytes 1MiB, within 50ms)"]
  n7["compress (zstd)"]
  n8[("kafka orders.accepted")]
  dead[("kafka orders.dead")]
  n1 --> n2
  n2 --> n3
  n3 --> n4
  n4 --> n5
  n5 --> n6
  n6 --> n7
  n7 --> n8
  n2 -.->|"rejected"| dead
  n3 -.->|"rejected"| dead
`,
  );
  const drawing = draw(branched, "mermaid");
  for (const line of [
    'n3{"route"}',
    'n3 -->|"big"| n4',
    'n3 -->|"rest"| n7',
    'n7(("merge-1"))',
    'audit1[("inert log")]',
  ]) {
    assert.ok(drawing.includes(`  ${line}\n`), `${line} in\n${drawing}`);
  }
});

test("a topology as dot", () => {
  const drawing = draw(branched, "dot");
  assert.match(drawing, /^digraph "branched" \{\n {2}rankdir=LR;\n/);
  for (const line of [
    'n2 [label="decode (text)", shape=box];',
    'n3 -> n4 [label="big"];',
    'n5 -> audit1 [label="audit", style=dashed];',
    "n1 -> n2;",
  ]) {
    assert.ok(drawing.includes(`  ${line}\n`), `${line} in\n${drawing}`);
  }
});

test("functions are shown as the field they read; secrets, objects and addresses are not shown", () => {
  const connection = inertConnection({ address: "amqp://user:canary@host" });
  const topology = declare("labels", (t) => {
    t.from(inertSource("a", { connection, targets: ["a", "b", "c", "d", "e"] }))
      .pipe(
        step("deep", { value: (o: { a: { b: number } }) => o.a.b }),
        step("own", { value: ({ id }: { id: number }) => id }),
        step("other", { of: (o: { a: string; b: string }) => [o.a, o.b] }),
        step("hidden", { password: secret("canary"), schema: { const: "canary" }, list: ["canary"] }),
        step("url", {
          path: "https://user:canary@host/",
          reason: "a very long reason, as somebody may give",
        }),
        step("odd", { on: true, off: undefined, nothing: null, big: 10n }),
      )
      .to(inertSink("stdout", { type: "stdout" }));
  });
  assert.equal(
    draw(topology, "text"),
    `inert a, b, c, … (5)
│ deep (a.b)
│ own (id)
│ other
│ hidden
│ url (https://***@host/, a very long reason, as somebo…)
│ odd (on true, big 10)
▼ stdout
`,
  );
  for (const format of drawingFormats)
    assert.doesNotMatch(draw(topology, format), /canary@|: ?canary|"canary/);
});

/** Letters that mean something to one of the languages, and letters that come from anywhere. */
const label = fc.string({
  unit: fc.oneof(
    fc.constantFrom(..."\"'`<>{}[]()|\\;#&-=%\n\t:@/"),
    fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 }),
  ),
  maxLength: 20,
});

test("no name or option of an author can be mistaken for syntax, and the same plan is drawn the same", () => {
  fc.assert(
    fc.property(label, label, label, (target, option, branch) => {
      const make = () =>
        declare("odd", (t) => {
          const branches = t
            .from(inertSource(target))
            .pipe(step("step", { option }))
            .route({ [`b${branch}`]: () => true });
          Object.values(branches)[0]!.to(inertSink(`to ${target}`));
          t.deadLetters(inertSink("dead"));
        });
      for (const format of drawingFormats) assert.equal(draw(make(), format), draw(make(), format));
      const text = String.raw`[^"\n]*`;
      const mermaid = new RegExp(
        `^  (\\w+(\\(\\["${text}"\\]\\)|\\["${text}"\\]|\\{"${text}"\\}|\\[\\("${text}"\\)\\])|\\w+ -\\.?->(\\|"${text}"\\|)? \\w+)$`,
      );
      for (const line of draw(make(), "mermaid").trimEnd().split("\n").slice(1)) {
        assert.match(line, mermaid);
        for (const [, quoted] of line.matchAll(/"([^"]*)"/g)) assert.doesNotMatch(quoted!, /[`<>{}\\]/);
      }
      const quoted = String.raw`"(?:[^"\\\n]|\\["\\])*"`;
      const dot = new RegExp(
        `^  (rankdir=LR|\\w+ \\[label=${quoted}, shape=\\w+\\]|\\w+ -> \\w+( \\[(label=${quoted})?(, )?(style=dashed)?\\])?);$`,
      );
      for (const line of draw(make(), "dot").trimEnd().split("\n").slice(1, -1)) assert.match(line, dot);
      assert.equal(draw(make(), "text").split("\n").length, 9);
    }),
  );
});
