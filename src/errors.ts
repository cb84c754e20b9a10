/**
 * What an error means for the run:
 * - `business`: the message's own fault. It goes to the dead letters with its original bytes, then settles.
 * - `application`: a mistake in the topology, its configuration or the author's code. Found at the start it
 *   refuses to run (exit 78); met while running it dead-letters the message.
 * - `system`: the process cannot go on. It exits non-zero and acknowledges nothing.
 * - `network`: the other side is away. Retried with backoff; nothing is settled meanwhile.
 */
export type ErrorClass = "business" | "application" | "system" | "network";

interface ErrorEntry {
  readonly class: ErrorClass;
  /** What it means, in one sentence. */
  readonly summary: string;
}

/** Every error code, with its class and meaning. A code that is not here does not exist. */
export const errorTable = {
  // A message's own fault.
  "utf8-invalid": { class: "business", summary: "the value is not valid UTF-8" },
  "json-invalid": { class: "business", summary: "the value is not valid JSON" },
  "json-too-deep": { class: "business", summary: "the JSON value is nested deeper than allowed" },
  "json-forbidden-key": {
    class: "business",
    summary: "the JSON value has a key that could change a prototype",
  },
  "value-missing": { class: "business", summary: "the message has no value" },
  "value-too-large": { class: "business", summary: "the value is larger than allowed" },
  "schema-violation": { class: "business", summary: "the value does not follow the schema" },
  "key-missing": { class: "business", summary: "the field that makes the key is missing" },
  "key-invalid": { class: "business", summary: "the key is not text, bytes, or a safe whole number" },
  "id-missing": { class: "business", summary: "the field that makes the dedup id is missing" },
  "id-invalid": { class: "business", summary: "the dedup id is not text, bytes, or a safe whole number" },
  "compressed-invalid": { class: "business", summary: "the compressed payload is damaged or incomplete" },
  "decompressed-too-large": {
    class: "business",
    summary: "the payload grows beyond the limit when decompressed",
  },
  "codec-unknown": { class: "business", summary: "the payload is compressed with an unknown codec" },
  "encode-failed": { class: "business", summary: "the value cannot be encoded" },
  "rule-broken": { class: "business", summary: "the message breaks a rule of the topology" },
  "route-none": { class: "business", summary: "no branch of the route takes the message" },
  "record-too-large": { class: "business", summary: "the destination refuses a message of this size" },
  "record-refused": { class: "business", summary: "the destination refuses this message and takes others" },
  unroutable: { class: "business", summary: "no queue is bound for the message's exchange and routing key" },
  // The author's code or configuration.
  "author-error": { class: "application", summary: "a function of the topology threw an error" },
  "author-timeout": { class: "application", summary: "a function of the topology took too long" },
  "option-unknown": { class: "application", summary: "a component has no such option" },
  "option-missing": { class: "application", summary: "a component lacks a required option" },
  "option-invalid": { class: "application", summary: "an option has a value that is not allowed" },
  "worker-refused": { class: "application", summary: "a worker process did not accept its topology" },
  "env-missing": { class: "application", summary: "an environment variable is not set" },
  "file-unreadable": { class: "application", summary: "a topology file cannot be read" },
  "file-no-topology": { class: "application", summary: "a file does not export a topology" },
  "topology-cycle": { class: "application", summary: "the graph has a cycle" },
  "topology-dangling": { class: "application", summary: "a branch leads nowhere" },
  "topology-empty": { class: "application", summary: "the topology has no flow" },
  "topology-duplicate-name": { class: "application", summary: "two things have one name" },
  "topology-conflict": {
    class: "application",
    summary: "two parts of topologies use what only one of them can have",
  },
  "topology-foreign-stream": { class: "application", summary: "a stream of another topology is used" },
  "batch-exceeds-credit": {
    class: "application",
    summary: "a batch waits for more messages than may be in flight",
  },
  "batch-outlasts-ack": {
    class: "application",
    summary: "a batch waits longer than its source lets a message be unacknowledged",
  },
  "batch-may-starve": { class: "application", summary: "open batches could take all credit" },
  "encode-missing": { class: "application", summary: "changed values reach a sink without being encoded" },
  "decode-missing": { class: "application", summary: "a step needs decoded values and gets bytes" },
  "decode-repeated": { class: "application", summary: "a step needs bytes and gets decoded values" },
  "dead-letters-missing": {
    class: "application",
    summary: "a step can reject messages and there are no dead letters",
  },
  "step-after-batch": { class: "application", summary: "a step that works on messages stands after batch" },
  "step-repeated": { class: "application", summary: "a step makes one before it useless" },
  "order-impossible": {
    class: "application",
    summary: "a sink is to keep an order that what leads to it does not allow",
  },
  "target-missing": { class: "application", summary: "a topic, queue or exchange does not exist" },
  "target-mismatch": { class: "application", summary: "a queue or exchange exists with other settings" },
  "access-refused": { class: "application", summary: "the broker refuses these credentials or this access" },
  "package-missing": {
    class: "application",
    summary: "a package that a connector needs is not installed",
  },
  "topology-unsafe": { class: "application", summary: "the topology could lose messages" },
  // The process cannot go on.
  "disk-failed": { class: "system", summary: "a file cannot be written" },
  "dead-letter-impossible": { class: "system", summary: "a message must be dead-lettered and cannot be" },
  "drain-timeout": { class: "system", summary: "the drain did not finish in time" },
  "stage-broken": {
    class: "system",
    summary: "a raw stage threw, ended early, or gave out what it had not been given",
  },
  "gave-up": { class: "system", summary: "a fault lasted longer than the run may wait for it" },
  internal: { class: "system", summary: "a mistake in Millrace itself" },
  // The other side is away.
  "connection-lost": { class: "network", summary: "the connection is down" },
} as const satisfies Readonly<Record<string, ErrorEntry>>;

export type ErrorCode = keyof typeof errorTable;

/** An error of Millrace: a code from the table, what happened, where, and what to do. */
export class MillraceError extends Error {
  readonly code: ErrorCode;
  readonly class: ErrorClass;
  /** What to do about it. */
  readonly remedy: string | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { readonly remedy?: string; readonly cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "MillraceError";
    this.code = code;
    this.class = errorTable[code].class;
    this.remedy = options.remedy;
  }
}

/** Which code an error arose in decides what an unknown one means. */
export type ErrorOrigin = "author" | "component";

/**
 * The class of any thrown thing; total. Unknown from an author's per-message code is `application`; unknown
 * from a source, sink or driver is `network`, so that no message is blamed for a failure that is not its own.
 */
export function classify(error: unknown, origin: ErrorOrigin): ErrorClass {
  try {
    if (error instanceof MillraceError) return error.class;
    if (isFatal(error)) return "system";
  } catch {
    // An author's code may throw an object that throws when it is looked at.
  }
  return origin === "author" ? "application" : "network";
}

/** The process itself is unwell: out of memory, disk or handles. */
function isFatal(error: unknown): boolean {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return (
    code === "ENOSPC" ||
    code === "EMFILE" ||
    code === "ENFILE" ||
    code === "ENOMEM" ||
    code === "ERR_WORKER_OUT_OF_MEMORY"
  );
}

/** An error's message, with credentials in URLs blanked. Total: authors' code may throw what has no text. */
export function messageOf(error: unknown): string {
  let text: string;
  try {
    text = String(error instanceof Error ? error.message : error);
  } catch {
    text = "something that cannot be shown";
  }
  return text.replaceAll(/([a-z][a-z0-9+.-]*:\/\/)[^/@\s]+@/gi, "$1***@");
}
