import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingHttpHeaders, request } from "node:http";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import type { RunStatus } from "../runtime/status.ts";
import { UsageError } from "./exit-code.ts";
import { type HttpAddress, type HttpView, isOwnHost, openHttp, parseHttpAddress } from "./http.ts";

const conservation = {
  accepted: 10,
  delivered: 4,
  filtered: 1,
  duplicate: 2,
  deadLettered: 1,
  returned: 0,
  lost: 0,
  inFlight: 2,
};

const status: RunStatus = {
  topology: "orders",
  mode: "running",
  startedAt: 1_700_000_000_500,
  ready: false,
  conservation,
  sources: [
    {
      name: "orders.in",
      type: "kafka",
      ready: true,
      reason: undefined,
      conservation,
      lanes: [{ name: "orders.in/0", epoch: 1, inFlight: 2, span: 3, checkpoint: 7 }],
      backlog: 5,
      held: 1,
      waiting: 1,
      creditMessages: 100,
      creditBytes: 1_000,
      bytesInFlight: 64,
    },
  ],
  sinks: [
    {
      name: "orders.out",
      type: "kafka",
      ready: false,
      reason: 'reconnecting to "a\nb"',
      written: 4,
      writing: 1,
      batches: 2,
    },
  ],
  lastErrors: [],
  counters: { reconnects_total: 3, "odd-name": 1, messages: 9 },
};

const view = (reasons: readonly string[] = []): HttpView => ({
  scrape: () => ({ version: "1.2.3", statuses: [status] }),
  unready: () => reasons,
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

async function served(t: TestContext, from: HttpView, address: HttpAddress = { host: "127.0.0.1", port: 0 }) {
  const endpoint = await openHttp(address, from);
  t.after(() => endpoint.close());
  const port = Number(new URL(endpoint.url).port);
  const ask = async (path: string, options: { method?: string; host?: string; body?: string } = {}) => {
    const { method = "GET", host = `127.0.0.1:${port}`, body } = options;
    const sized = body === undefined ? {} : { "content-length": body.length };
    const sent = request({
      host: "127.0.0.1",
      port,
      path,
      method,
      headers: { host, ...sized },
      agent: false,
    });
    sent.end(body);
    const [response] = (await once(sent, "response")) as [import("node:http").IncomingMessage];
    let text = "";
    for await (const piece of response) text += piece;
    return { status: response.statusCode!, headers: response.headers, body: text } satisfies Answer;
  };
  return { endpoint, port, ask };
}

test("--http takes a port, or a host and a port; the host is loopback unless given", () => {
  assert.deepEqual(parseHttpAddress("9100"), { host: "127.0.0.1", port: 9100 });
  assert.deepEqual(parseHttpAddress(":0"), { host: "127.0.0.1", port: 0 });
  assert.deepEqual(parseHttpAddress("0.0.0.0:80"), { host: "0.0.0.0", port: 80 });
  assert.deepEqual(parseHttpAddress("localhost:80"), { host: "localhost", port: 80 });
  assert.deepEqual(parseHttpAddress("[::1]:80"), { host: "::1", port: 80 });
  for (const wrong of ["", "http", "localhost", "1:2:3", "::1:80", "[::g]:80", "99999", "a:99999", "-1"]) {
    assert.throws(() => parseHttpAddress(wrong), UsageError, wrong);
  }
});

test("livez is always ok; readyz says what is missing", async (t) => {
  const reasons: string[] = [];
  const { ask } = await served(t, view(reasons));
  assert.equal((await ask("/livez")).status, 200);
  assert.equal((await ask("/readyz")).status, 200);
  reasons.push("orders: orders.out: reconnecting");
  const unready = await ask("/readyz");
  assert.equal(unready.status, 503);
  assert.match(unready.body, /orders: orders\.out: reconnecting/);
  assert.equal((await ask("/livez?x=1")).status, 200);
});

test("status is one JSON object with the conservation of all topologies", async (t) => {
  const { ask } = await served(t, view(["not yet"]));
  const { status: code, headers, body } = await ask("/status");
  assert.equal(code, 200);
  assert.match(headers["content-type"]!, /^application\/json/);
  const { uptimeSeconds, ...rest } = JSON.parse(body);
  assert.ok(uptimeSeconds > 0);
  assert.deepEqual(rest, {
    version: "1.2.3",
    pid: process.pid,
    node: process.version,
    ...JSON.parse(JSON.stringify(status)),
    reasons: ["not yet"],
    topologies: JSON.parse(JSON.stringify([status])),
  });
});

test("seed 001.5: metrics are OpenMetrics, with every outcome, lane, sink and component counter", async (t) => {
  const { ask } = await served(t, view());
  const { headers, body } = await ask("/metrics");
  assert.match(headers["content-type"]!, /^application\/openmetrics-text; version=1\.0\.0/);
  assert.ok(body.endsWith("# EOF\n"));
  const lines = body.split("\n");
  for (const line of [
    'millrace_messages_total{topology="orders",source="orders.in",outcome="delivered"} 4',
    'millrace_messages_total{topology="orders",source="orders.in",outcome="lost"} 0',
    'millrace_accepted_total{topology="orders",source="orders.in"} 10',
    'millrace_in_flight{topology="orders",source="orders.in"} 2',
    'millrace_span{topology="orders",source="orders.in",lane="orders.in/0"} 3',
    'millrace_sink_written_total{topology="orders",sink="orders.out"} 4',
    'millrace_sink_ready{topology="orders",sink="orders.out"} 0',
    'millrace_reconnects_total{topology="orders"} 3',
    'millrace_odd_name_total{topology="orders"} 1',
    'millrace_component_messages_total{topology="orders"} 9',
    "# TYPE millrace_messages counter",
    "# TYPE millrace_span gauge",
  ]) {
    assert.ok(lines.includes(line), `${line}\nis not in\n${body}`);
  }
  const again = await ask("/metrics");
  assert.ok(
    again.body.includes('outcome="delivered"} 4\n'),
    "a second scrape must not add to what the first one showed",
  );
});

test("seed 002.8: status is given as FHIR Parameters to whoever asks for it, and in no other format", async (t) => {
  const { ask } = await served(t, view([]));
  const fhir = await ask("/status?format=fhir");
  assert.equal(fhir.status, 200);
  assert.match(fhir.headers["content-type"]!, /^application\/fhir\+json/);
  assert.equal(JSON.parse(fhir.body).resourceType, "Parameters");
  assert.deepEqual(Object.keys(JSON.parse((await ask("/status?format=json")).body)).slice(0, 1), ["version"]);
  assert.equal((await ask("/status?format=xml")).status, 400);
});

test("only GET and HEAD of known paths, without a body", async (t) => {
  const { ask } = await served(t, view());
  assert.equal((await ask("/")).status, 404);
  assert.equal((await ask("/status/")).status, 404);
  assert.equal((await ask("/../status")).status, 404);
  const post = await ask("/status", { method: "POST", body: "x" });
  assert.equal(post.status, 405);
  assert.equal(post.headers.allow, "GET, HEAD");
  assert.equal((await ask("/status", { method: "DELETE" })).status, 405);
  assert.equal((await ask("/status", { method: "GET", body: "x" })).status, 413);
  const head = await ask("/status", { method: "HEAD" });
  assert.equal(head.status, 200);
  assert.equal(head.body, "");
  assert.ok(Number(head.headers["content-length"]) > 100);
});

test("nothing is for other sites: no CORS, no caching, no sniffing, no framing", async (t) => {
  const { ask } = await served(t, view());
  const { headers } = await ask("/status");
  assert.equal(headers["access-control-allow-origin"], undefined);
  assert.equal(headers["cache-control"], "no-store");
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.match(String(headers["content-security-policy"]), /default-src 'none'.*frame-ancestors 'none'/);
});

test("a Host that is not ours is refused, on every path", async (t) => {
  const { ask, port } = await served(t, view());
  for (const path of ["/livez", "/readyz", "/metrics", "/status", "/"]) {
    const { status: code, body } = await ask(path, { host: `evil.example:${port}` });
    assert.equal(code, 403, path);
    assert.doesNotMatch(body, /orders/);
  }
  for (const host of [`localhost:${port}`, "LOCALHOST", "127.0.0.1", "[::1]:1", "127.9.9.9"]) {
    assert.equal((await ask("/status", { host })).status, 200, host);
  }
});

test("which Host is ours", () => {
  for (const [header, own, expected] of [
    ["127.0.0.1.evil.example", "127.0.0.1", false],
    ["localhost.evil.example", "127.0.0.1", false],
    ["10.0.0.5:9100", "127.0.0.1", false],
    ["10.0.0.5:9100", "10.0.0.5", true],
    ["10.0.0.5:9100", "0.0.0.0", true],
    ["[fd00::1]:9100", "::", true],
    ["evil.example", "0.0.0.0", false],
    ["Metrics.internal:9100", "metrics.internal", true],
    ["user@localhost", "127.0.0.1", false],
    ["localhost:x", "127.0.0.1", false],
    ["", "127.0.0.1", false],
    [undefined, "127.0.0.1", false],
  ] as const) {
    assert.equal(isOwnHost(header, own), expected, `${header} at ${own}`);
  }
});

test("headers beyond the limit are refused", async (t) => {
  const { port } = await served(t, view());
  const socket = connect(port, "127.0.0.1");
  socket.write(`GET /status HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(10_000)}\r\n\r\n`);
  const [answer] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  assert.match(answer.toString(), /^HTTP\/1\.1 431 /);
});

test("an address that is taken is a configuration error that says so", async (t) => {
  const { port } = await served(t, view());
  await assert.rejects(openHttp({ host: "127.0.0.1", port }, view()), {
    code: "option-invalid",
    message: new RegExp(`--http 127\\.0\\.0\\.1:${port} cannot be opened: .*EADDRINUSE`),
  });
});
