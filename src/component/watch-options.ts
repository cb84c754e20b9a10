import { type Duration, milliseconds, type OptionProblem, type OptionsSchema } from "./options.ts";
import type { WatchOptions } from "./source.ts";

/** The options by which a source that is watched says when it stands still, and what is done then. */
interface StallOptions {
  readonly stallTimeout?: Duration;
  readonly onStall?: "restart" | "report";
}

/** Less would find sources guilty that are only slow, ms. */
const shortest = 1_000;

export const watchSchema: OptionsSchema = {
  stallTimeout: { isDuration: true },
  onStall: { enum: ["restart", "report"] },
};

/** A restart loses nothing and repeats little, and a consumer that stays dead is worse: so it is the default. */
export function watchOptions({ stallTimeout, onStall }: StallOptions): WatchOptions {
  return { after: milliseconds(stallTimeout, 120_000), policy: onStall ?? "restart" };
}

/** @param what "kafka source", for the message. */
export function watchProblems(what: string, options: StallOptions): OptionProblem[] {
  const { after } = watchOptions(options);
  if (after >= shortest) return [];
  return [
    {
      code: "option-invalid",
      message: `${what}: "stallTimeout" is ${after} ms, and a source that is only slow would be taken for dead`,
      remedy: `give it at least ${shortest / 1_000} s; it is 2 minutes unless set`,
    },
  ];
}
