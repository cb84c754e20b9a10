import type { RunStatus } from "../runtime/status.ts";

/** One entry of a FHIR Parameters resource: a value of the type its name says, or parts. */
interface Parameter {
  readonly name: string;
  readonly valueString?: string;
  readonly valueDecimal?: number;
  readonly valueDateTime?: string;
  readonly part?: readonly Parameter[];
}

export interface FhirParameters {
  readonly resourceType: "Parameters";
  readonly parameter: readonly Parameter[];
}

const mostErrors = 5;

/**
 * A status as Aidbox's `$status` of a topic destination gives it: a FHIR Parameters resource with that operation's
 * names and types, which differ by mode. Counts are decimals, but for `messagesLost`, which it documents as text.
 * `messagesDeliveryAttempts` counts attempts that failed. Times are UTC.
 */
export function fhirStatus(status: RunStatus): FhirParameters {
  const { conservation, sources, counters, startedAt, lastErrors } = status;
  const decimal = (name: string, valueDecimal: number): Parameter => ({ name, valueDecimal });
  const start: readonly Parameter[] = [
    { name: "startTimestamp", valueDateTime: new Date(startedAt).toISOString() },
    // It goes on trying to send whatever it has received.
    { name: "status", valueString: "active" },
  ];
  const delivered = decimal("messagesDelivered", conservation.delivered);
  const inProcess = decimal("messagesInProcess", conservation.inFlight);
  const errors = lastErrors.slice(0, mostErrors).map(
    ({ message, at }): Parameter => ({
      name: "lastErrorDetail",
      part: [
        { name: "message", valueString: message },
        { name: "timestamp", valueDateTime: new Date(at).toISOString() },
      ],
    }),
  );
  if (status.bestEffort === true) {
    const lost: Parameter = { name: "messagesLost", valueString: String(conservation.lost) };
    return { resourceType: "Parameters", parameter: [...start, delivered, inProcess, lost, ...errors] };
  }
  const queued = sources.reduce((sum, source) => sum + source.backlog + (source.queued ?? 0), 0);
  return {
    resourceType: "Parameters",
    parameter: [
      delivered,
      decimal("messagesDeliveryAttempts", failedAttempts(counters)),
      inProcess,
      decimal("messagesQueued", queued),
      ...start,
      ...errors,
    ],
  };
}

/** Sinks count their failed attempts under these names. */
function failedAttempts(counters: RunStatus["counters"]): number {
  return counters.write_retries_total ?? 0;
}
