import type { Random } from "../../src/component/context.ts";
import type { Bed } from "./bed.ts";

/** One fault of a schedule. */
export type Step =
  | { readonly fault: "kill" | "freeze" | "delay" | "black hole" | "join" | "storm" }
  | { readonly fault: "restart"; readonly how: "kill" | "clean" }
  | { readonly fault: "cut"; readonly side: "before" | "reply" }
  | { readonly fault: "trouble"; readonly name: string };

/** How many of each fault a round has. */
export interface Profile {
  readonly name: "ci" | "release";
  /** By which drivers it is run on Kafka, unless told otherwise. */
  readonly drivers: readonly ("wire" | "kafkajs")[];
  /** Rounds, each with brokers of its own: where a campaign can be left and taken up again. */
  readonly rounds: number;
  /** Messages of a round, about. */
  readonly messages: number;
  readonly kills: number;
  /** Half of them by kill -9, half in good order. */
  readonly restarts: number;
  /** Half of them of the reply alone. */
  readonly cuts: number;
  readonly freezes: number;
  /** Longest freeze of a runner, ms. */
  readonly longestFreeze: number;
  readonly delays: number;
  readonly blackHoles: number;
  /** A second member comes, and goes again. */
  readonly joins: number;
  /** Members come and go every 2 s, for a while. */
  readonly storms: number;
  /** How often each trouble comes; those not named do not. */
  readonly troubles: Readonly<Record<string, number>>;
}

export const profiles: Readonly<Record<Profile["name"], Profile>> = {
  ci: {
    name: "ci",
    drivers: ["wire"],
    rounds: 1,
    messages: 300_000,
    kills: 20,
    restarts: 10,
    cuts: 50,
    freezes: 1,
    longestFreeze: 5_000,
    delays: 2,
    blackHoles: 1,
    joins: 1,
    storms: 0,
    troubles: {
      "leaders moved": 2,
      "sink rejects all": 1,
      "log disk full": 1,
      "memory alarm": 1,
      "disk alarm": 1,
      "output deleted": 1,
      "input deleted": 1,
    },
  },
  release: {
    name: "release",
    drivers: ["wire", "kafkajs"],
    rounds: 10,
    messages: 200_000,
    kills: 20,
    restarts: 10,
    cuts: 50,
    freezes: 2,
    longestFreeze: 40_000,
    delays: 3,
    blackHoles: 2,
    joins: 2,
    storms: 1,
    troubles: {
      "leaders moved": 3,
      "leaders moved every 2 s": 1,
      "sink rejects all": 1,
      "log disk full": 1,
      "broker frozen": 1,
      "memory alarm": 1,
      "disk alarm": 1,
      "output deleted": 1,
      "input deleted": 1,
    },
  },
};

/** A round's faults in an order of chance. */
export function schedule(profile: Profile, bed: Pick<Bed, "troubles">, random: Random): Step[] {
  const some = <T>(count: number, make: (index: number) => T) =>
    Array.from({ length: count }, (_, i) => make(i));
  const troubles = Object.keys(bed.troubles).flatMap((name) =>
    some(profile.troubles[name] ?? 0, (): Step => ({ fault: "trouble", name })),
  );
  const steps: Step[] = [
    ...some(profile.kills, (): Step => ({ fault: "kill" })),
    ...some(profile.restarts, (i): Step => ({ fault: "restart", how: i % 2 === 0 ? "kill" : "clean" })),
    ...some(profile.cuts, (i): Step => ({ fault: "cut", side: i % 2 === 0 ? "before" : "reply" })),
    ...some(profile.freezes, (): Step => ({ fault: "freeze" })),
    ...some(profile.delays, (): Step => ({ fault: "delay" })),
    ...some(profile.blackHoles, (): Step => ({ fault: "black hole" })),
    ...some(profile.joins, (): Step => ({ fault: "join" })),
    ...some(profile.storms, (): Step => ({ fault: "storm" })),
    ...troubles,
  ];
  for (let last = steps.length - 1; last > 0; last--) {
    const other = Math.floor(random.next() * (last + 1));
    [steps[last], steps[other]] = [steps[other]!, steps[last]!];
  }
  return steps;
}
