import { readFileSync } from "node:fs";
import { env, MillraceError, type ProducerSettings, producerSettings, type TokenProvider } from "millrace";

/** How a destination delivers; `kafka-at-least-once` costs a transaction's write and read for each message more. */
export type Kind = "kafka-best-effort" | "kafka-at-least-once";

/** Who stands for the callback handler classes that a destination may name: add yours. */
const tokenProviders: Readonly<Record<string, TokenProvider>> = {};

/**
 * The destination as the resource that Aidbox keeps of it, from the file that `AIDBOX_DESTINATION` names.
 * `KAFKA_BROKERS` goes before its `bootstrapServers`.
 *
 * @throws MillraceError `option-invalid` when it is of another kind, or its parameters are wrong.
 */
export function destination(kind: Kind, example: string): ProducerSettings {
  const file = env("AIDBOX_DESTINATION", new URL(example, import.meta.url).pathname);
  const given = parametersOf(JSON.parse(readFileSync(file, "utf8")), kind);
  const brokers = process.env.KAFKA_BROKERS ? { bootstrapServers: process.env.KAFKA_BROKERS } : {};
  return producerSettings(
    { ...given, ...brokers },
    { delivery: kind === "kafka-best-effort" ? "bestEffort" : "atLeastOnce", tokenProviders },
  );
}

interface Resource {
  readonly resourceType?: unknown;
  readonly kind?: unknown;
  readonly meta?: { readonly profile?: readonly unknown[] };
  readonly parameter?: readonly Readonly<Record<string, unknown>>[];
}

/** The parameters of an AidboxTopicDestination by name, whose values come as `valueString` or `valueInteger`. */
export function parametersOf(resource: Resource, kind: Kind): Record<string, unknown> {
  const profile = `http://aidbox.app/StructureDefinition/aidboxtopicdestination-${kind}`;
  const profiles = resource.meta?.profile ?? [profile];
  if (
    resource.resourceType !== "AidboxTopicDestination" ||
    resource.kind !== kind ||
    !profiles.includes(profile)
  ) {
    throw new MillraceError(
      "option-invalid",
      `the destination is no AidboxTopicDestination of kind ${kind}`,
      {
        remedy: `give one with kind "${kind}" and profile ${profile}, or run the topology of its own kind`,
      },
    );
  }
  const parameters: Record<string, unknown> = {};
  for (const { name, valueString, valueInteger } of resource.parameter ?? []) {
    if (typeof name !== "string" || Object.hasOwn(parameters, name)) {
      throw new MillraceError(
        "option-invalid",
        "a parameter of the destination has no name, or another one's",
        {
          remedy: "name each parameter once",
        },
      );
    }
    parameters[name] = valueString ?? valueInteger ?? null;
  }
  return parameters;
}
