import type { Context } from "./context.ts";
import { callerLocation } from "./location.ts";
import type { Operator, OperatorContext, OperatorDefinition } from "./operator.ts";
import { optionProblems } from "./options.ts";

/**
 * Turns a definition into the means of placing the operator in a topology. Options are checked at once, but
 * mistakes are kept with the operator for `compile` to report together with all others.
 */
export function defineOperator<Options extends object>(
  definition: OperatorDefinition<Options>,
): OperatorDefinition<Options> & { place<In, Out>(options: Options): Operator<In, Out> } {
  return {
    ...definition,
    place<In, Out>(options: Options): Operator<In, Out> {
      const problems = [...optionProblems(definition.type, definition.schema, options)];
      const sound = problems.length === 0;
      if (sound && definition.verify !== undefined) problems.push(...definition.verify(options));
      const store = sound ? definition.store?.(options) : undefined;
      return {
        kind: "operator",
        type: definition.type,
        options: options as Readonly<Record<string, unknown>>,
        location: callerLocation(),
        problems,
        effect: sound ? definition.effect(options) : { takes: "any", leaves: "same" },
        rejects: definition.rejects,
        ...(sound && definition.holds !== undefined ? { holds: definition.holds(options) } : {}),
        ...(sound && definition.holdsFor !== undefined ? { holdsFor: definition.holdsFor(options) } : {}),
        ...(store === undefined
          ? {}
          : { store, open: (context: Context) => definition.open!(options, context) }),
        build: (context: OperatorContext) => definition.build(options, context),
      };
    },
  };
}
