import { callerLocation } from "../component/location.ts";
import type { Router } from "../component/operator.ts";
import type { OptionProblem } from "../component/options.ts";
import type { Chunk } from "../message/chunk.ts";
import { byIndex, isPromise, type OfMessage, rejectPromise, rejectThrown } from "./author-function.ts";

export interface RouteChoices {
  /** A further branch, for the messages that no predicate is true of. Without it they are rejected (`route-none`). */
  readonly otherwise?: string;
}

/**
 * Parts a stream by predicates, tried in the order they are written: each message goes to the first branch whose
 * predicate is true of it, and to no other. One that no predicate takes is never dropped unsaid. A predicate that
 * throws decides nothing: its message goes to the dead letters.
 *
 * @example const { big, small } = orders.route({ big: (o) => o.amount > 1_000, small: () => true });
 */
export function route<T>(
  predicates: Readonly<Record<string, OfMessage<T, boolean>>>,
  choices: RouteChoices = {},
): Router {
  const names = Object.keys(predicates);
  const { otherwise } = choices;
  const branches = otherwise === undefined ? names : [...names, otherwise];
  return {
    type: "route",
    branches,
    options: otherwise === undefined ? {} : { otherwise },
    location: callerLocation(),
    problems: problemsOf(predicates, names, otherwise),
    rejects: true,
    build: (context) => {
      const tests = names.map((name) => byIndex(predicates[name] as OfMessage<T, boolean>));
      /** The branch of a message, or −1 when it was settled here. */
      const branchOf = (chunk: Chunk, index: number): number => {
        for (let branch = 0; branch < tests.length; branch++) {
          const what = `the predicate of branch "${names[branch]}"`;
          try {
            const taken: unknown = tests[branch]!(chunk, index);
            if (isPromise(taken)) {
              rejectPromise(context, chunk, index, what, "it must answer at once", taken);
              return -1;
            }
            if (taken) return branch;
          } catch (error) {
            rejectThrown(context, chunk, index, what, error);
            return -1;
          }
        }
        if (otherwise !== undefined) return names.length;
        const message = `none of the branches ${names.join(", ")} takes the message`;
        context.reject(chunk, index, { class: "business", code: "route-none", message });
        return -1;
      };
      return (chunk) => part(chunk, branches.length, branchOf);
    },
  };
}

/** Parts a chunk: the one branch that takes all of it gets the chunk itself, several get copies of the columns. */
function part(
  chunk: Chunk,
  branches: number,
  branchOf: (chunk: Chunk, index: number) => number,
): readonly (Chunk | undefined)[] {
  const taken = new Int16Array(chunk.length).fill(-1);
  const counts = new Int32Array(branches);
  for (let i = 0; i < chunk.length; i++) {
    if (chunk.state[i] === 0) continue;
    const branch = branchOf(chunk, i);
    taken[i] = branch;
    if (branch >= 0) counts[branch]!++;
  }
  const parts: (Chunk | undefined)[] = new Array(branches).fill(undefined);
  const whole = counts.indexOf(chunk.live);
  if (whole >= 0 && chunk.live > 0) {
    parts[whole] = chunk;
    return parts;
  }
  for (let branch = 0; branch < branches; branch++) {
    if (counts[branch] === 0) continue;
    const share = chunk.share();
    for (let i = 0; i < chunk.length; i++) if (taken[i] !== branch) share.takeOut(i);
    parts[branch] = share;
  }
  return parts;
}

function problemsOf(
  predicates: Readonly<Record<string, unknown>>,
  names: readonly string[],
  otherwise: string | undefined,
): OptionProblem[] {
  const problems: OptionProblem[] = [];
  if (names.length === 0) {
    problems.push({
      code: "option-missing",
      message: "route has no branches",
      remedy: "give predicates by name: { big: (o) => o.amount > 1_000 }",
    });
  }
  for (const name of names) {
    if (typeof predicates[name] === "function") continue;
    problems.push({
      code: "option-invalid",
      message: `route: branch "${name}" must be a function`,
      remedy: "give a function of the value that says whether the message goes there",
    });
  }
  if (otherwise !== undefined && names.includes(otherwise)) {
    problems.push({
      code: "option-invalid",
      message: `route: otherwise names the branch "${otherwise}", which has a predicate`,
      remedy: `let the predicate of "${otherwise}" be true of them, or name a further branch`,
    });
  }
  return problems;
}
