import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import type { EmbeddedBroker, StoredMessage } from "../component/embedded.ts";
import { dump, fileNames, recordForm } from "./dump.ts";

const message: StoredMessage = {
  partition: 2,
  position: 7,
  key: Buffer.from("k"),
  value: Buffer.from('{"ort":"Zürich"}'),
  headers: [],
  timestamp: 1_700_000_000_123,
};

test("a message is one line: text as text, other bytes in base64, null as null, headers as pairs", () => {
  assert.equal(
    recordForm(message),
    '{"partition":2,"offset":7,"key":"k","value":"{\\"ort\\":\\"Zürich\\"}","headers":[],"timestamp":1700000000123}',
  );
  const odd = recordForm({
    ...message,
    key: null,
    value: Buffer.from([0xff, 0x00]),
    headers: [
      ["a", Buffer.from("1")],
      ["a", Buffer.from([0x80])],
      ["n", null],
      ["i", 3],
      ["t", true],
      ["__proto__", "text"],
    ],
  });
  assert.deepEqual(JSON.parse(odd), {
    partition: 2,
    offset: 7,
    key: null,
    value: { base64: "/wA=" },
    headers: [
      ["a", "1"],
      ["a", { base64: "gA==" }],
      ["n", null],
      ["i", 3],
      ["t", true],
      ["__proto__", "text"],
    ],
    timestamp: 1_700_000_000_123,
  });
});

test("an empty key and a null key differ; a byte order mark and line ends stay", () => {
  const lines = [Buffer.alloc(0), null, Buffer.from("\ufeffa\r\nb")].map(
    (key) => JSON.parse(recordForm({ ...message, key })).key,
  );
  assert.deepEqual(lines, ["", null, "\ufeffa\r\nb"]);
});

const at = (name: string, connector = "kafka", address = "127.0.0.1:9092") => ({ name, connector, address });

test("ordinary names are file names; others are made safe", () => {
  assert.deepEqual(
    fileNames(["quakes.versions", "a/b", "..", "", "ö:*", ".hidden"].map((name) => at(name))),
    [
      "quakes.versions.ndjson",
      "a%2Fb.ndjson",
      "%2E..ndjson",
      "%.ndjson",
      "%C3%B6%3A%2A.ndjson",
      "%2Ehidden.ndjson",
    ],
  );
});

test("targets of one name on two brokers, or apart only by case, get files of their own", () => {
  assert.deepEqual(fileNames([at("orders"), at("orders", "rabbitmq", "localhost:5672")]), [
    "orders@kafka-127.0.0.1%3A9092.ndjson",
    "orders@rabbitmq-localhost%3A5672.ndjson",
  ]);
  const names = fileNames([at("Orders"), at("orders")]);
  assert.equal(new Set(names.map((name) => name.toLowerCase())).size, 2);
});

test("file names are safe, short and all different, whatever the targets are called", () => {
  const name = fc.oneof(
    fc.string({ unit: "binary", maxLength: 300 }),
    fc.constantFrom("a", "A", "%41", "a@kafka-x", "..", "/etc/passwd", "a".repeat(101), "a".repeat(102)),
  );
  const target = fc.record({
    name,
    connector: fc.constantFrom("kafka", "rabbitmq"),
    address: fc.constantFrom("x", "X"),
  });
  const targets = fc.uniqueArray(target, { selector: (one) => JSON.stringify(one), maxLength: 8 });
  fc.assert(
    fc.property(targets, (given) => {
      const names = fileNames(given);
      assert.equal(new Set(names.map((one) => one.toLowerCase())).size, given.length);
      for (const one of names)
        assert.match(one, /^[A-Za-z0-9_%~-][A-Za-z0-9._%~@-]{0,240}\.ndjson$|^%\.ndjson$/);
    }),
  );
});

test("every target has a file, an empty one too, and an old file of that name is replaced", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "millrace-dump-"));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, "full.ndjson"), "stale\n".repeat(100));
  const many = Array.from({ length: 5_000 }, (_, position) => ({ ...message, position }));
  const broker: EmbeddedBroker = {
    targets: () => ["empty", "full"],
    feed: () => {},
    contents: (target) => (target === "full" ? many : []),
  };
  const files = dump(
    join(folder, "."),
    ["empty", "full", "declared"].map((name) => ({ ...at(name), broker })),
  );
  assert.deepEqual(readdirSync(folder).sort(), ["declared.ndjson", "empty.ndjson", "full.ndjson"]);
  assert.deepEqual(
    files.map((file) => readFileSync(file, "utf8").split("\n").length - 1),
    [0, 5_000, 0],
  );
  const last = readFileSync(join(folder, "full.ndjson"), "utf8").trimEnd().split("\n").at(-1)!;
  assert.equal(JSON.parse(last).offset, 4_999);
});
