/**
 * `millrace/testing`: what authors of topologies, operators and connectors test them with. It needs no test
 * framework and no library for properties: chance comes from a seed, and whoever has fast-check can draw it there.
 */

/** Virtual time: it stands still until a test moves it. */
export { SimulatedClock, settlePromises } from "./clock.ts";
/** Runs one connector after another through the same scenarios, and names what it does wrong. */
export {
  type Anomaly,
  ConformanceError,
  type ConformanceScenario,
  type SinkUnderTest,
  type SourceUnderTest,
  sinkScenarios,
  sourceScenarios,
} from "./connector-conformance.ts";
/** A context under virtual time, with chance from a seed, and log lines and counts kept. */
export { seededRandom, type TestContext, testContext } from "./context.ts";
/** One operator, or several in a row, on the bench. */
export { type BedOptions, type GivenMessage, OperatorBed } from "./operator-bed.ts";
/** An opened source or sink on the bench. */
export { type Received, SinkBed, SourceBed, type Written } from "./session-bed.ts";
