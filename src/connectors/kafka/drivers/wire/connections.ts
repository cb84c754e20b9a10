import type { Context } from "../../../../component/context.ts";
import { DriverError } from "../../driver.ts";
import type { KafkaSettings } from "../../options.ts";
import { type Address, addressName, BrokerConnection, parseAddress } from "./connection.ts";

/**
 * What a connection is for. Each purpose has its own to each broker, since a broker answers one request of a
 * connection after the other: a fetch that waits for data would hold up a heartbeat.
 */
export type Purpose = "fetch" | "produce" | "group" | "admin";

/** The connections of one client, opened when they are needed and opened anew when they are lost. */
export class Connections {
  readonly #settings: KafkaSettings;
  readonly #context: Context;
  readonly #bootstrap: readonly Address[];
  #brokers: ReadonlyMap<number, Address> = new Map();
  /** Addresses that are or were those of brokers; others are ways in, behind which any broker may be. */
  readonly #everNamed = new Set<string>();
  readonly #open = new Map<string, Promise<BrokerConnection>>();
  readonly #ready = new Map<string, BrokerConnection>();
  /** Replaced by others, and still waiting for an answer. */
  readonly #retired = new Set<BrokerConnection>();
  /**
   * By address, for what a connection failed or an answer is overdue. It may be another broker that keeps a
   * request waiting (a leader waits for its followers), so that tells most of connections for the same purpose.
   */
  readonly #failed = new Map<string, Set<Purpose>>();
  /** Called again and again while some broker does not answer. */
  onOverdue: () => void = () => {};
  #closed = false;

  constructor(settings: KafkaSettings, context: Context) {
    this.#settings = settings;
    this.#context = context;
    this.#bootstrap = settings.brokers.map(parseAddress);
    if (settings.tls?.insecureSkipVerify) {
      context.logger.warn({ node: context.node }, "TLS certificates are not verified (insecureSkipVerify)");
    }
  }

  /**
   * The brokers as the cluster names them now. One that it does not name any more, and that does not answer, is
   * not waited for: what it led is led by others. Other connections are left to end.
   */
  set brokers(brokers: ReadonlyMap<number, Address>) {
    if (brokers.size === 0) return;
    this.#brokers = brokers;
    const named = new Set([...brokers.values()].map(addressName));
    for (const address of named) this.#everNamed.add(address);
    for (const connection of [...this.#ready.values()]) {
      const { address, overdue } = connection;
      if (overdue && this.#everNamed.has(address) && !named.has(address)) connection.close();
    }
  }

  /** The same as {@link to}, where it is open already: a request can leave at once. */
  ready(node: number, purpose: Purpose): BrokerConnection | undefined {
    const address = this.#brokers.get(node);
    return address === undefined ? undefined : this.#ready.get(keyOf(address, purpose));
  }

  /** A connection to one broker of the cluster. */
  to(node: number, purpose: Purpose): Promise<BrokerConnection> {
    const address = this.#brokers.get(node);
    if (address === undefined) {
      return Promise.reject(new DriverError("retry", `broker ${node} is not known at the moment`));
    }
    return this.at(address, purpose);
  }

  at(address: Address, purpose: Purpose): Promise<BrokerConnection> {
    if (this.#closed) return Promise.reject(new DriverError("retry", "the client is closed"));
    const key = keyOf(address, purpose);
    const present = this.#open.get(key);
    if (present !== undefined) return present;
    const opening = BrokerConnection.open(address, this.#settings, this.#context).then((connection) => {
      this.#failed.delete(addressName(address));
      if (this.#closed) {
        connection.close();
        throw new DriverError("retry", "the client is closed");
      }
      if (connection.closed) throw new DriverError("retry", `${connection.address}: connection lost`);
      connection.onRetire = () => {
        if (this.#ready.get(key) === connection) this.#ready.delete(key);
        if (this.#open.get(key) === opening) this.#open.delete(key);
        this.#retired.add(connection);
      };
      connection.onClose = () => {
        const inUse = this.#open.get(key) === opening;
        connection.onRetire();
        this.#retired.delete(connection);
        if (inUse) this.#doubt(addressName(address), purpose);
      };
      connection.onOverdue = () => {
        this.#doubt(connection.address, purpose);
        this.onOverdue();
      };
      connection.onAnswer = () => this.#failed.delete(connection.address);
      this.#ready.set(key, connection);
      return connection;
    });
    opening.catch(() => {
      if (this.#open.get(key) === opening) this.#open.delete(key);
      this.#doubt(addressName(address), purpose);
    });
    this.#open.set(key, opening);
    return opening;
  }

  /** Whom to ask what any broker knows: those that failed last come last. */
  inTurn(purpose: Purpose): readonly Address[] {
    const candidates = new Map(
      [...this.#brokers.values(), ...this.#bootstrap].map((address) => [addressName(address), address]),
    );
    const doubts = (name: string) => {
      const purposes = this.#failed.get(name);
      return purposes === undefined ? 0 : purposes.has(purpose) ? 2 : 1;
    };
    return [...candidates].sort(([a], [b]) => doubts(a) - doubts(b)).map(([, address]) => address);
  }

  /** A connection to whichever broker can be reached. */
  async toAny(purpose: Purpose): Promise<BrokerConnection> {
    let failure: unknown;
    for (const address of this.inTurn(purpose)) {
      try {
        return await this.at(address, purpose);
      } catch (error) {
        failure = error;
        // Another broker would say the same.
        if (error instanceof DriverError && error.code !== "retry") throw error;
      }
    }
    throw failure;
  }

  #doubt(address: string, purpose: Purpose): void {
    const purposes = this.#failed.get(address);
    if (purposes === undefined) this.#failed.set(address, new Set([purpose]));
    else purposes.add(purpose);
  }

  close(): void {
    this.#closed = true;
    for (const opening of this.#open.values()) {
      opening.then(
        (connection) => connection.close(),
        () => {},
      );
    }
    this.#open.clear();
    for (const connection of [...this.#retired]) connection.close();
  }
}

function keyOf(address: Address, purpose: Purpose): string {
  return `${addressName(address)} ${purpose}`;
}
