import { apiVersionsV3, type Callback, Connection, type Reader, type Writer } from "@platformatic/kafka";
import type { Context, Time, Timer } from "../../../../component/context.ts";
import { DriverError } from "../../driver.ts";
import type { KafkaSettings } from "../../options.ts";
import { driverError, ErrorCode, protocolCode } from "./errors.ts";
import {
  type BrokerVersions,
  checkVersions,
  chooseApi,
  chooseVersion,
  type LibraryRequest,
  type OwnRequest,
  tooOld,
} from "./requests.ts";
import { security } from "./security.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** Any answer says how long the broker wants to hear nothing more on this connection, ms. */
export interface OwnAnswer {
  readonly throttle: number;
}

/** A request that is written and read by us. */
export interface OwnExchange<R extends OwnAnswer> {
  readonly request: OwnRequest;
  write(version: number): Writer;
  read(reader: Reader, version: number): R;
}

/** Longer than any wait of ours: the library's own timers, which know no context, then never fire first. */
const never = 2 ** 31 - 1;

/** A broker that has not answered for so long after it should have may be dead; asked about again as often, ms. */
const overdueAfter = 2_000;
const overdueAgain = 1_000;

/** The part of a login's life in which the connection is used. */
const loginUsed = 0.8;

/**
 * One connection to one broker, authenticated, with the broker's versions known. A broker serves the requests of
 * a connection one after the other, so what may wait long (a fetch, a produce, a join) has one of its own.
 *
 * It is not mended: once anything about it fails, it is closed, all its requests reject with code `retry`, and
 * whoever needs one opens another.
 */
export class BrokerConnection {
  /** "127.0.0.1:9092" */
  readonly address: string;
  readonly #connection: Connection;
  readonly #context: Context;
  readonly #requestTimeout: number;
  /** Called once, when the connection has ended for whatever reason. */
  onClose: () => void = () => {};
  /** Called once, when the connection is to be used no more: it ends when what is under way is answered. */
  onRetire: () => void = () => {};
  /** Called again and again while an answer is overdue. */
  onOverdue: () => void = () => {};
  /** Called when an answer that was overdue has come. */
  onAnswer: () => void = () => {};
  #versions: BrokerVersions = new Map();
  /** Until then the broker reads nothing of what we send: a quota is used up. */
  #mutedUntil: Time = Number.NEGATIVE_INFINITY;
  #underWay = 0;
  #retired = false;
  #retirement: Timer | undefined;
  /** Requests that should have been answered by now. */
  #overdue = 0;
  #closed = false;

  private constructor(address: Address, settings: KafkaSettings, context: Context) {
    this.address = addressName(address);
    this.#context = context;
    this.#requestTimeout = settings.requestTimeout;
    this.#connection = new Connection(settings.clientId, {
      connectTimeout: settings.connectTimeout,
      requestTimeout: never,
      ...security(settings, address.host, (lifetime) => this.#retireBefore(lifetime)),
    });
    // Failures reach us through the requests that are out; an event nobody listens to would end the process.
    this.#connection.on("error", () => this.close());
    this.#connection.on("close", () => this.close());
  }

  /** Rejects with a {@link DriverError}: `access`, `unsupported` for a broker that is too old, else `retry`. */
  static async open(address: Address, settings: KafkaSettings, context: Context): Promise<BrokerConnection> {
    const connection = new BrokerConnection(address, settings, context);
    try {
      await connection.#open(address, settings);
      return connection;
    } catch (error) {
      connection.close();
      throw driverError(error, connection.address);
    }
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Nothing tells whether an answer will still come. */
  get overdue(): boolean {
    return this.#overdue > 0;
  }

  get versions(): BrokerVersions {
    return this.#versions;
  }

  /** Makes a request of the library. A response that carries an error rejects. */
  ask<A extends unknown[], R>(request: LibraryRequest<A, R>, ...args: A): Promise<R> {
    return this.#ask(request, 0, args);
  }

  /** The same for a request that a broker may keep for so many ms before it answers. */
  askPatiently<A extends unknown[], R>(
    request: LibraryRequest<A, R>,
    patience: number,
    ...args: A
  ): Promise<R> {
    return this.#ask(request, patience, args);
  }

  /** The same for a request whose response names errors one by one: the response is the caller's to read. */
  async askForParts<A extends unknown[], R>(request: LibraryRequest<A, R>, ...args: A): Promise<R> {
    try {
      return await this.#ask(request, 0, args);
    } catch (error) {
      const response = partsOf(error);
      if (response === undefined) throw error;
      return response as R;
    }
  }

  /** Makes a request of our own that a broker may keep for `patience` ms. */
  exchange<R extends OwnAnswer>(exchange: OwnExchange<R>, patience: number): Promise<R> {
    const version = chooseVersion(exchange.request, this.#versions, this.address);
    return this.#within(exchange.request.name, patience, this.#requestTimeout, (done: Callback<R>) =>
      this.#connection.send<R>(
        exchange.request.key,
        version,
        () => exchange.write(version),
        (_correlation, _key, _version, reader) => exchange.read(reader, version),
        true,
        true,
        done,
      ),
    );
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#retirement?.cancel();
    this.#connection.close(() => {});
    // The library lets a socket flush first, which a broker that has stopped reading would never let it do.
    this.#connection.socket?.destroy();
    this.onClose();
  }

  /** The broker cuts a connection whose login is older than that. */
  #retireBefore(lifetime: number): void {
    if (lifetime <= 0) return;
    this.#retirement = this.#context.clock.after(Math.min(never, loginUsed * lifetime), () => {
      this.#retired = true;
      this.onRetire();
      if (this.#underWay === 0) this.close();
    });
  }

  async #open(address: Address, settings: KafkaSettings): Promise<void> {
    await new Promise<void>((resolve, reject) =>
      this.#connection.connect(address.host, address.port, (error) => (error ? reject(error) : resolve())),
    );
    const { apiKeys } = await this.#askForVersions(settings);
    this.#versions = new Map(
      apiKeys.map(({ apiKey, minVersion, maxVersion }) => [apiKey, { min: minVersion, max: maxVersion }]),
    );
    checkVersions(this.#versions, this.address);
  }

  async #askForVersions(settings: KafkaSettings): Promise<{
    readonly apiKeys: readonly {
      readonly apiKey: number;
      readonly minVersion: number;
      readonly maxVersion: number;
    }[];
  }> {
    try {
      return await this.#within("ApiVersions", 0, settings.connectTimeout, (done) =>
        apiVersionsV3.api(this.#connection, "millrace", "1", done),
      );
    } catch (error) {
      // From before 2.4: it could not even say what it understands.
      if (protocolCode(error) === ErrorCode.unsupportedVersion) throw tooOld(this.address);
      throw error;
    }
  }

  async #ask<A extends unknown[], R>(request: LibraryRequest<A, R>, patience: number, args: A): Promise<R> {
    const api = chooseApi(request, this.#versions, this.address);
    return this.#within(request.name, patience, this.#requestTimeout, (done: Callback<R>) =>
      (api as unknown as (connection: Connection, ...args: unknown[]) => void)(
        this.#connection,
        ...args,
        done,
      ),
    );
  }

  /**
   * @param held for so long a broker may keep the request before it answers, ms
   * @param timeout and so long the answer may take, ms
   */
  #within<R>(name: string, held: number, timeout: number, send: (done: Callback<R>) => void): Promise<R> {
    return new Promise<R>((resolve, reject) => {
      if (this.#closed) {
        reject(new DriverError("retry", `${this.address}: the connection is closed`));
        return;
      }
      const { clock } = this.#context;
      const sent = clock.now();
      let overdue = false;
      const look = () => {
        // Other requests of this connection may have been answered with the wish for silence since.
        const elapsed = clock.now() - Math.max(sent, this.#mutedUntil);
        const left = held + timeout - elapsed;
        if (left <= 0) {
          const limit = Math.round(held + timeout);
          reject(new DriverError("retry", `${this.address}: no answer to ${name} within ${limit} ms`));
          this.close();
          return;
        }
        const untilDue = held + overdueAfter - elapsed;
        timer = clock.after(Math.min(never, left, untilDue > 0 ? untilDue : overdueAgain), look);
        if (untilDue > 0) return;
        if (!overdue) this.#overdue++;
        overdue = true;
        this.onOverdue();
      };
      let timer = clock.after(Math.min(never, held + timeout, held + overdueAfter), look);
      this.#underWay++;
      send((error, response) => {
        timer.cancel();
        this.#underWay--;
        if (this.#retired && this.#underWay === 0) this.close();
        if (overdue) this.#overdue--;
        if (error) {
          reject(driverError(error, `${this.address}: ${name}`));
          return;
        }
        if (overdue) this.onAnswer();
        const throttle = throttleOf(response);
        if (throttle > 0) this.#mutedUntil = clock.now() + throttle;
        resolve(response as R);
      });
    });
  }
}

export function addressName({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** "host:port", "[::1]:9092"; the port is 9092 where none is given. */
export function parseAddress(text: string): Address {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]*))(?::(\d+))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || host === "") return { host: text, port: 9092 };
  return { host, port: port === undefined ? 9092 : Number(port) };
}

/** As our own exchanges name it, and as the library does. */
function throttleOf(response: unknown): number {
  const { throttle, throttleTimeMs } = (response ?? {}) as { throttle?: number; throttleTimeMs?: number };
  return throttle ?? throttleTimeMs ?? 0;
}

/** The response that came with an error of the library for some of its parts. */
function partsOf(error: unknown): unknown {
  const cause = error instanceof DriverError ? error.cause : undefined;
  return (cause as { response?: unknown } | undefined)?.response;
}
