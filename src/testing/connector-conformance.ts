import type { Context } from "../component/context.ts";
import type { Sink } from "../component/sink.ts";
import type { Source, SourceSession } from "../component/source.ts";
import { Outcome } from "../message/outcome.ts";
import { SinkBed, SourceBed } from "./session-bed.ts";

/** What a connector does wrong, by the names that histories are judged with. */
export type Anomaly =
  /** It was acknowledged upstream, or said to be stored, and was not done with. */
  | "early-ack"
  /** It was accepted and never came, or never came again. */
  | "lost-write"
  /** It came before what it should have come after. */
  | "order-inversion"
  /** It came twice without a fault. */
  | "duplicate"
  /** Something goes on after its end. */
  | "leak";

/** A scenario that a connector did not pass. */
export class ConformanceError extends Error {
  readonly anomaly: Anomaly;

  constructor(anomaly: Anomaly, message: string) {
    super(`${anomaly}: ${message}`);
    this.name = "ConformanceError";
    this.anomaly = anomaly;
  }
}

/** What the suite needs of whoever tests: time that passes, on the machine's clock or on a simulated one. */
interface Passing {
  readonly context: Context;
  /**
   * Waits for a condition while time passes, and resolves to whether it came true: after a time within which the
   * connector does all that it ever does, it did not.
   */
  comesTrue(condition: () => boolean | Promise<boolean>): Promise<boolean>;
  /**
   * Lets a while pass in which a connector that is wrong would show it. When it is short less is found; a connector
   * that is right passes however long it is. Default: as long as `comesTrue` waits.
   */
  aWhile?(): Promise<void>;
}

/** What a test does to a broker, or why it cannot: scenarios that need it then have an exemption. */
type Interference<Args extends readonly unknown[] = []> =
  | ((...args: Args) => Promise<void>)
  | { readonly impossible: string };

function whyNot(...all: readonly (Interference | Interference<[boolean]>)[]): string | undefined {
  for (const one of all) if (typeof one !== "function") return one.impossible;
  return undefined;
}

/** A source, one target of its own that is empty, and what the suite does to its broker. */
export interface SourceUnderTest extends Passing {
  readonly source: Source;
  /** Puts values into the target, in order and in one lane. */
  publish(values: readonly string[]): Promise<void>;
  /** The values that the broker has been told are done, and will not give again. */
  acknowledged(): Promise<readonly string[]>;
  /** Breaks the source's connection. What is unacknowledged is the broker's again; it can connect again. */
  readonly cut: Interference;
}

/** A sink, one target of its own that is empty, and what the suite does to its broker. */
export interface SinkUnderTest extends Passing {
  readonly sink: Sink;
  /** What the target holds, in order. */
  stored(): Promise<readonly string[]>;
  /** From now on the broker stores nothing and answers nothing, or, with false, does all that it kept. */
  readonly stall: Interference<[stalls: boolean]>;
  /** Breaks the sink's connection; what was under way is lost, or stored unheard of. It can connect again. */
  readonly cut: Interference;
}

export interface ConformanceScenario<Bed> {
  /** A sentence that holds for every connector. */
  readonly name: string;
  /** Why it cannot be asked of this connector, or tested with this broker; undefined: it can. */
  exemption(bed: Bed): string | undefined;
  /** Judges nothing where there is an exemption. @throws ConformanceError when the sentence does not hold */
  run(bed: Bed): Promise<void>;
}

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => String(from + i));

async function expect(
  bed: Passing,
  anomaly: Anomaly,
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  if (!(await bed.comesTrue(condition))) throw new ConformanceError(anomaly, what);
}

async function aWhile(bed: Passing): Promise<void> {
  if (bed.aWhile === undefined) await bed.comesTrue(() => false);
  else await bed.aWhile();
}

const always = () => undefined;
const whereItReplays = ({ source }: SourceUnderTest) =>
  source.capabilities.replays ? undefined : "its capabilities say that nothing comes again";

/** Opens the source on a bench; whatever becomes of the scenario, it is closed. */
async function withSource(
  under: SourceUnderTest,
  use: (bed: SourceBed, session: SourceSession) => Promise<void>,
): Promise<void> {
  const bed = new SourceBed(under.context, under.source.credit);
  const session = await finished(under, under.source.open(bed.context));
  try {
    await use(bed, session);
  } finally {
    await finished(under, session.close(under.context.clock.now() + 1_000));
  }
}

/** Lets time pass until the promise is settled. */
async function finished<T>(bed: Passing, promise: Promise<T>): Promise<T> {
  let over = false;
  const end = () => {
    over = true;
  };
  promise.then(end, end);
  await expect(bed, "leak", "a call of the connector never ends", () => over);
  return promise;
}

/** The first value that came before one that was published earlier; copies are no matter. */
function inversion(values: readonly (string | null)[]): string | undefined {
  let highest = -1;
  for (const value of new Set(values)) {
    if (Number(value) < highest) return `${value} came after ${highest}`;
    highest = Number(value);
  }
  return undefined;
}

function requireOrder(values: readonly (string | null)[]): void {
  const found = inversion(values);
  if (found !== undefined) throw new ConformanceError("order-inversion", found);
}

/**
 * What must hold of every source, whatever its broker, as far as its capabilities say that it can.
 *
 * @example
 * for (const { name, run } of sourceScenarios) test(name, async () => run(await openMyBed()));
 */
export const sourceScenarios: readonly ConformanceScenario<SourceUnderTest>[] = [
  {
    name: "a source hands on what was published, once, and in order where it keeps one",
    exemption: always,
    async run(under) {
      await withSource(under, async (bed) => {
        await under.publish(numbers(0, 20));
        await expect(under, "lost-write", "not all of 20 came", () => bed.payloads.length >= 20);
        await aWhile(under);
        if (bed.payloads.length > 20)
          throw new ConformanceError("duplicate", `${bed.payloads.length} came of 20`);
        if (under.source.capabilities.order === "lane") requireOrder(bed.payloads);
      });
    },
  },
  {
    name: "a source acknowledges nothing that is not settled, and on a cumulative lane nothing above it",
    exemption: always,
    async run(under) {
      await withSource(under, async (bed, session) => {
        await under.publish(numbers(0, 10));
        await expect(under, "lost-write", "not all of 10 came", () => bed.payloads.length >= 10);
        const settled = new Set<string | null>();
        const check = async () => {
          await finished(under, session.commit());
          // What is done late is done too early as well.
          await aWhile(under);
          for (const value of await under.acknowledged()) {
            if (!settled.has(value)) throw new ConformanceError("early-ack", `${value} was not settled`);
          }
        };
        await check();
        // One with an unsettled one before it.
        for (const value of bed.settle(5, 1)) {
          if (under.source.capabilities.ack === "individual") settled.add(value);
        }
        await check();
        for (const value of bed.settle(0, 3)) settled.add(value);
        await check();
        await expect(under, "leak", "what is settled is not acknowledged by commit()", async () => {
          const acknowledged = await under.acknowledged();
          return ["0", "1", "2"].every((value) => acknowledged.includes(value));
        });
      });
    },
  },
  {
    name: "after a lost connection all that was not acknowledged comes again, and what is settled late does nothing",
    exemption: (under) => whyNot(under.cut) ?? whereItReplays(under),
    async run(under) {
      const { cut } = under;
      if (typeof cut !== "function" || !under.source.capabilities.replays) return;
      await withSource(under, async (bed, session) => {
        await under.publish(numbers(0, 10));
        await expect(under, "lost-write", "not all of 10 came", () => bed.payloads.length >= 10);
        bed.settle(0, 4);
        await finished(under, session.commit());
        await finished(under, cut.call(under));
        await under.publish(numbers(10, 12));
        await expect(under, "lost-write", "nothing comes after a lost connection", () =>
          bed.open.some(({ payload }) => payload === "11"),
        );
        for (const { chunk, index } of bed.open) {
          if (chunk.lane.ended) chunk.settle(index, Outcome.delivered);
        }
        bed.forgetEnded();
        const wanted = numbers(4, 12);
        await expect(under, "lost-write", "what was not acknowledged did not come again", () => {
          const open = new Set(bed.open.map(({ payload }) => payload));
          return wanted.every((value) => open.has(value));
        });
        if (under.source.capabilities.order === "lane") requireOrder(bed.open.map(({ payload }) => payload));
      });
    },
  },
  {
    name: "a source that is closed and opened again goes on after what was acknowledged",
    exemption: whereItReplays,
    async run(under) {
      if (!under.source.capabilities.replays) return;
      await withSource(under, async (bed, session) => {
        await under.publish(numbers(0, 6));
        await expect(under, "lost-write", "not all of 6 came", () => bed.payloads.length >= 6);
        session.stopIntake();
        await under.publish(["6"]);
        await aWhile(under);
        if (bed.payloads.includes("6")) {
          throw new ConformanceError("leak", "it takes in more after stopIntake()");
        }
        bed.settle(0, 3);
        await finished(under, session.commit());
      });
      await withSource(under, async (bed) => {
        await expect(under, "lost-write", "what was not acknowledged did not come again", () =>
          numbers(3, 7).every((value) => bed.payloads.includes(value)),
        );
        const repeated = bed.payloads.find((value) => Number(value) < 3);
        if (repeated !== undefined) {
          throw new ConformanceError("duplicate", `${repeated} came again though it was acknowledged`);
        }
      });
    },
  },
];

async function withSink(under: SinkUnderTest, use: (bed: SinkBed) => Promise<void>): Promise<void> {
  const session = await finished(under, under.sink.open(under.context));
  try {
    await use(new SinkBed(under.context, session));
  } finally {
    await finished(under, session.close(under.context.clock.now() + 1_000));
  }
}

/** Whatever becomes of it, the broker goes on afterwards: another scenario may be next. */
async function whileStalled<T>(
  under: SinkUnderTest,
  stall: (stalls: boolean) => Promise<void>,
  use: () => Promise<T>,
): Promise<T> {
  await finished(under, stall.call(under, true));
  try {
    return await use();
  } finally {
    await finished(under, stall.call(under, false));
  }
}

const messages = (values: readonly string[]) => values.map((value) => ({ key: Buffer.from("k"), value }));

/** What must hold of every sink, whatever its broker. See {@link sourceScenarios}. */
export const sinkScenarios: readonly ConformanceScenario<SinkUnderTest>[] = [
  {
    name: "a sink settles a message only when it is stored",
    exemption: ({ stall }) => whyNot(stall),
    async run(under) {
      const { stall } = under;
      if (typeof stall !== "function") return;
      await withSink(under, async (bed) => {
        const written = await whileStalled(under, stall, async () => {
          const written = bed.write(messages(numbers(0, 5)));
          await aWhile(under);
          if (written.some(({ outcomes }) => outcomes.some((one) => one !== "inFlight"))) {
            throw new ConformanceError("early-ack", "a message was settled while the broker stored nothing");
          }
          return written;
        });
        await expect(under, "lost-write", "nothing was settled after the broker went on", () =>
          written.flatMap(({ outcomes }) => outcomes).every((one) => one === "delivered"),
        );
        const stored = await under.stored();
        const missing = numbers(0, 5).find((value) => !stored.includes(value));
        if (missing !== undefined) throw new ConformanceError("lost-write", `${missing} is not stored`);
      });
    },
  },
  {
    name: "a sink stores batches of one destination in the order of writing, though writes overlap",
    exemption: always,
    async run(under) {
      await withSink(under, async (bed) => {
        const written = Array.from({ length: 8 }, (_, i) =>
          bed.write(messages(numbers(i * 3, i * 3 + 3))),
        ).flat();
        await expect(under, "lost-write", "not all were settled", () =>
          written.every(({ outcomes }) => outcomes.every((one) => one === "delivered")),
        );
        const stored = await under.stored();
        if (stored.length !== 24)
          throw new ConformanceError("duplicate", `${stored.length} are stored of 24`);
        requireOrder(stored);
      });
    },
  },
  {
    name: "a sink whose connection is lost writes again what was under way, in order, and loses nothing",
    exemption: ({ cut, stall }) => whyNot(cut, stall),
    async run(under) {
      const { cut, stall } = under;
      if (typeof cut !== "function" || typeof stall !== "function") return;
      await withSink(under, async (bed) => {
        const written = [bed.write(messages(numbers(0, 3)))];
        await expect(under, "lost-write", "not all were settled", () =>
          written.flat().every(({ outcomes }) => outcomes.every((one) => one === "delivered")),
        );
        await whileStalled(under, stall, async () => {
          for (let i = 1; i < 6; i++) written.push(bed.write(messages(numbers(i * 3, i * 3 + 3))));
          // What is under way has left by then.
          await aWhile(under);
          await finished(under, cut.call(under));
        });
        const all = () => written.flat();
        await expect(under, "lost-write", "what was under way was never settled", () =>
          all().every(({ outcomes }) => outcomes.every((one) => one === "delivered")),
        );
        const stored = await under.stored();
        const missing = numbers(0, 18).find((value) => !stored.includes(value));
        if (missing !== undefined) {
          throw new ConformanceError("lost-write", `${missing} was settled "delivered" and is not stored`);
        }
        // Nothing was refused here: whatever order a sink promises, it is due.
        requireOrder(stored);
      });
    },
  },
];
