import type { Duplex } from "node:stream";

/**
 * The socket under an amqplib connection. amqplib writes each message to it by itself, which is a system call
 * each; corked while messages are being published, it takes them together.
 */
export class Corked {
  readonly #socket: Duplex;
  #corked = false;

  /** @param connection amqplib's, whose socket its types do not show. */
  constructor(connection: object) {
    this.#socket = (connection as { readonly stream: Duplex }).stream;
    // amqplib goes on writing as soon as there is room again; this comes before its own listener.
    this.#socket.prependListener("drain", () => this.cork());
  }

  /** Holds writes back until amqplib has handed over what was published in this turn of the event loop. */
  cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
    // amqplib moves frames to the socket in an immediate of its own, which was or will be asked for in this
    // turn; an immediate asked for by an immediate runs after it.
    setImmediate(() =>
      setImmediate(() => {
        this.#corked = false;
        this.#socket.uncork();
      }),
    );
  }

  /** Ends the connection without asking the broker. */
  cut(): void {
    // Without an error amqplib would not notice before its heartbeat does.
    this.#socket.destroy(new Error("closing took too long"));
  }
}
