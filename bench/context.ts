import type { Context } from "../src/component/context.ts";
import { PooledWork, systemClock, systemRandom } from "../src/component/system.ts";

/** What a component is given by the machine itself, without a log. */
export function benchContext(): Context {
  return {
    clock: systemClock,
    random: systemRandom,
    work: new PooledWork(),
    signal: new AbortController().signal,
    logger: { debug() {}, info() {}, warn() {}, error() {} },
    meter: { count() {} },
    embedded: undefined,
    node: "bench",
  };
}
