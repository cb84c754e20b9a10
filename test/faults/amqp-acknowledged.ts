import type { Direction } from "./frames.ts";

const [method, header, body] = [1, 2, 3];
const [channelOpen, deliver, ack] = [20 * 65_536 + 10, 60 * 65_536 + 60, 60 * 65_536 + 80];

/** What clients were given and have acknowledged, by value: a broker tells how many only. */
export class AmqpAcknowledged {
  /** Values of acknowledged messages, in the order of their acknowledgements. */
  readonly values: string[] = [];

  /** For a proxy in front of the broker. */
  readonly listens = () => {
    const channels = new Map<number, Deliveries>();
    const rest: Record<Direction, Buffer> = { request: Buffer.alloc(0), reply: Buffer.alloc(0) };
    return (direction: Direction, portion: Buffer): void => {
      let bytes = Buffer.concat([rest[direction], portion]);
      for (;;) {
        const length = frameLength(bytes);
        if (length === undefined || bytes.length < length) break;
        this.#frame(channels, direction, bytes.subarray(0, length));
        bytes = bytes.subarray(length);
      }
      rest[direction] = bytes;
    };
  };

  #frame(channels: Map<number, Deliveries>, direction: Direction, frame: Buffer): void {
    const type = frame[0];
    const channel = frame.readUInt16BE(1);
    if (type === method && direction === "request") {
      const number = frame.readUInt32BE(7);
      // Tags begin anew in a channel of the same number.
      if (number === channelOpen) channels.set(channel, new Deliveries());
      if (number !== ack) return;
      const multiple = (frame[19]! & 1) === 1;
      this.values.push(...(channels.get(channel)?.take(frame.readBigUInt64BE(11), multiple) ?? []));
    } else if (direction === "reply") {
      const deliveries = channels.get(channel);
      if (type === method && frame.readUInt32BE(7) === deliver) {
        // The consumer's name, with its length before it, comes first.
        deliveries?.begin(frame.readBigUInt64BE(12 + frame[11]!));
      } else if (type === header) deliveries?.expect(Number(frame.readBigUInt64BE(11)));
      else if (type === body) deliveries?.add(frame.subarray(7, -1));
    }
  }
}

/** The messages that one channel was given and has not acknowledged, by tag. */
class Deliveries {
  readonly #open = new Map<bigint, string>();
  #tag: bigint | undefined;
  #parts: Buffer[] = [];
  #missing = 0;

  begin(tag: bigint): void {
    this.#tag = tag;
    this.#parts = [];
  }

  expect(length: number): void {
    this.#missing = length;
    this.#endIfWhole();
  }

  add(part: Buffer): void {
    // The portion it lies in is the socket's.
    this.#parts.push(Buffer.from(part));
    this.#missing -= part.length;
    this.#endIfWhole();
  }

  take(tag: bigint, multiple: boolean): string[] {
    const tags = multiple ? [...this.#open.keys()].filter((one) => tag === 0n || one <= tag) : [tag];
    const values = tags.map((one) => this.#open.get(one)).filter((value) => value !== undefined);
    for (const one of tags) this.#open.delete(one);
    return values;
  }

  #endIfWhole(): void {
    if (this.#missing > 0 || this.#tag === undefined) return;
    this.#open.set(this.#tag, Buffer.concat(this.#parts).toString());
    this.#tag = undefined;
  }
}

/** Undefined while the bytes are too few to tell. */
function frameLength(bytes: Buffer): number | undefined {
  if (bytes.length < 8) return undefined;
  // "AMQP" and a version, with which a client begins.
  return bytes[0] === 0x41 ? 8 : 7 + bytes.readUInt32BE(3) + 1;
}
