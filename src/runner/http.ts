import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIP } from "node:net";
import { MillraceError, messageOf } from "../errors.ts";
import { UsageError } from "./exit-code.ts";
import { fhirStatus } from "./fhir-status.ts";
import { metricsContentType, openMetrics, type Scrape } from "./metrics.ts";
import { totalStatus } from "./total-status.ts";

export interface HttpAddress {
  /** Name or IP literal, without brackets. */
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
}

/** "9100", "localhost:9100", "[::1]:9100". Without a host it is 127.0.0.1. Throws a {@link UsageError}. */
export function parseHttpAddress(text: string): HttpAddress {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text);
  const [, six, name, digits] = match ?? [];
  const port = Number(digits);
  const host = six ?? (name === undefined || name === "" ? "127.0.0.1" : name);
  const sound = match !== null && port <= 65_535 && (six === undefined || isIP(six) === 6);
  if (!sound) {
    throw new UsageError(
      `--http ${text}: give a port or host:port, as in --http 9100 or --http 0.0.0.0:9100`,
    );
  }
  return { host, port };
}

/** What the endpoints show. */
export interface HttpView {
  /** Now. `statuses` is empty until the runs exist. */
  scrape(): Scrape;
  /** What keeps the process from being ready, in words; empty when it is. */
  unready(): readonly string[];
}

export interface HttpEndpoint {
  /** "http://127.0.0.1:9100", with the port that was taken. */
  readonly url: string;
  close(): Promise<void>;
}

const wildcards = ["0.0.0.0", "::"];

/** Opens `/livez`, `/readyz`, `/metrics` and `/status`. Rejects with class application when the address cannot be had. */
export async function openHttp(address: HttpAddress, view: HttpView): Promise<HttpEndpoint> {
  // Whoever asks wants a few kilobytes, soon: the limits keep a slow or greedy client from costing anything.
  const server = createServer(
    {
      maxHeaderSize: 8_192,
      headersTimeout: 5_000,
      requestTimeout: 10_000,
      keepAliveTimeout: 5_000,
      // Node looks for requests that take too long only so often: every 30 s unless told otherwise.
      connectionsCheckingInterval: 1_000,
    },
    (request, response) => {
      answer(request, response, address.host, view).catch((error) => {
        if (!response.headersSent) reply(response, 500, "text/plain", `${messageOf(error)}\n`);
        else response.destroy();
      });
    },
  );
  server.maxConnections = 64;
  server.setTimeout(15_000, (socket) => socket.destroy());
  await listening(server, address);
  const bound = server.address();
  const port = typeof bound === "object" && bound !== null ? bound.port : address.port;
  const host = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  return {
    url: `http://${host}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listening(server: Server, { host, port }: HttpAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) =>
      reject(
        new MillraceError("option-invalid", `--http ${host}:${port} cannot be opened: ${messageOf(error)}`, {
          remedy: "choose a free port (0 takes any) and an address of this machine",
          cause: error,
        }),
      ),
    );
    server.listen({ host, port }, resolve);
  });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  ownHost: string,
  view: HttpView,
): Promise<void> {
  const text = (status: number, body: string) => reply(response, status, "text/plain", `${body}\n`);
  // A page on the web can send its visitor's browser to a loopback address under a name of its own.
  if (!isOwnHost(request.headers.host, ownHost)) {
    return text(403, "this Host is not served here: use localhost or the address given to --http");
  }
  const path = request.url?.split("?", 1)[0];
  const page = pages.get(path ?? "");
  if (page === undefined) return text(404, "there is /livez, /readyz, /metrics and /status");
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD");
    return text(405, "only GET and HEAD");
  }
  const { "content-length": length = "0", "transfer-encoding": encoding } = request.headers;
  if (length !== "0" || encoding !== undefined) {
    response.setHeader("Connection", "close");
    return text(413, "a request here has no body");
  }
  const { status, type, body } = await page(view, new URLSearchParams(request.url!.slice(path!.length)));
  reply(response, status, type, body);
}

interface Page {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const pages = new Map<string, (view: HttpView, query: URLSearchParams) => Page | Promise<Page>>([
  ["/livez", () => ({ status: 200, type: "text/plain", body: "ok\n" })],
  [
    "/readyz",
    (view) => {
      const reasons = view.unready();
      return reasons.length === 0
        ? { status: 200, type: "text/plain", body: "ready\n" }
        : { status: 503, type: "text/plain", body: `not ready\n${reasons.join("\n")}\n` };
    },
  ],
  [
    "/metrics",
    async (view) => ({ status: 200, type: metricsContentType, body: await openMetrics(view.scrape()) }),
  ],
  [
    "/status",
    (view, query) => {
      const format = query.get("format") ?? "json";
      if (format === "json") return { status: 200, type: "application/json", body: statusJson(view) };
      if (format !== "fhir")
        return { status: 400, type: "text/plain", body: "format is json (default) or fhir\n" };
      const { statuses } = view.scrape();
      const body = `${JSON.stringify(fhirStatus(totalStatus(statuses)))}\n`;
      return { status: 200, type: "application/fhir+json", body };
    },
  ],
]);

function statusJson(view: HttpView): string {
  const { version, statuses } = view.scrape();
  const unready = view.unready();
  return `${JSON.stringify({
    version,
    pid: process.pid,
    node: process.version,
    uptimeSeconds: Math.round(process.uptime() * 1000) / 1000,
    ...totalStatus(statuses),
    ready: unready.length === 0,
    reasons: unready,
    topologies: statuses,
  })}\n`;
}

/**
 * Whether the Host header names this server: localhost, a loopback address, or the host given to `--http`. One
 * that listens on all addresses is also asked by address; a literal address is none that a web page could have
 * made up.
 */
export function isOwnHost(header: string | undefined, ownHost: string): boolean {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/@\s]+))(?::\d{1,5})?$/.exec(header ?? "");
  const name = (match?.[1] ?? match?.[2])?.toLowerCase();
  if (name === undefined) return false;
  if (name === "localhost" || name === "::1" || name === ownHost.toLowerCase()) return true;
  if (isIP(name) === 4 && name.startsWith("127.")) return true;
  return wildcards.includes(ownHost) && isIP(name) !== 0;
}

function reply(response: ServerResponse, status: number, type: string, body: string): void {
  const content = Buffer.from(body);
  response.writeHead(status, {
    "Content-Type": type.includes("charset") ? type : `${type}; charset=utf-8`,
    "Content-Length": content.length,
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
  });
  // Node leaves the body out of an answer to HEAD.
  response.end(content);
}
