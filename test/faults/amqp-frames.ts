import type { Look, Protocol } from "./frames.ts";

const method = 1;
const heartbeat = 8;

/** Class and method as one number. */
const fromClient = new Map([
  [methodNumber(60, 40), "publish"],
  [methodNumber(60, 80), "ack"],
  [methodNumber(60, 90), "reject"],
  [methodNumber(60, 120), "reject"],
]);
const fromBroker = new Map([
  [methodNumber(60, 60), "deliver"],
  [methodNumber(60, 50), "return"],
  [methodNumber(60, 80), "confirm"],
  [methodNumber(60, 120), "refusal"],
]);

function methodNumber(classId: number, methodId: number): number {
  return classId * 65_536 + methodId;
}

function looking(names: ReadonlyMap<number, string>): Look {
  return (beginning) => {
    // "AMQP" and a version: how a client opens, and how a broker answers one it does not speak with.
    if (beginning[0] === 0x41) return { kind: "hello", length: 8 };
    if (beginning.length < 7) return undefined;
    const length = 7 + beginning.readUInt32BE(3) + 1;
    const type = beginning[0];
    if (type === heartbeat) return { kind: "heartbeat", length };
    // Header and body of what was published or delivered.
    if (type !== method) return { kind: "content", length };
    if (beginning.length < 11) return undefined;
    const number = beginning.readUInt32BE(7);
    return { kind: names.get(number) ?? `method ${number >>> 16}.${number & 0xffff}`, length };
  };
}

/** AMQP 0-9-1's frames: type, channel, length, payload, end mark. A broker acknowledges by "confirm". */
export const amqpFrames: Protocol = () => ({ request: looking(fromClient), reply: looking(fromBroker) });
