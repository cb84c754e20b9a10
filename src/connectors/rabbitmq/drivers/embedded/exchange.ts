import type { ExchangeSettings, FieldTable } from "../../driver.ts";
import type { Queue } from "./queue.ts";

export interface Binding {
  readonly queue: Queue;
  readonly key: string;
  readonly arguments: FieldTable;
}

/** Routes messages to queues as its type says: direct, fanout, topic or headers. */
export class Exchange {
  readonly name: string;
  readonly settings: ExchangeSettings;
  bindings: Binding[] = [];

  constructor(name: string, settings: ExchangeSettings) {
    this.name = name;
    this.settings = settings;
  }

  bind(queue: Queue, key: string, table: FieldTable): void {
    const same = (other: Binding) =>
      other.queue === queue && other.key === key && JSON.stringify(other.arguments) === JSON.stringify(table);
    if (!this.bindings.some(same)) this.bindings.push({ queue, key, arguments: table });
  }

  unbind(queue: Queue): void {
    this.bindings = this.bindings.filter((binding) => binding.queue !== queue);
  }

  /** Adds the queues that take the message, each once. */
  route(key: string, headers: FieldTable, into: Set<Queue>): void {
    for (const binding of this.bindings) if (this.#takes(binding, key, headers)) into.add(binding.queue);
  }

  #takes(binding: Binding, key: string, headers: FieldTable): boolean {
    switch (this.settings.type) {
      case "fanout":
        return true;
      case "topic":
        return matchesTopic(binding.key.split("."), 0, key.split("."), 0);
      case "headers":
        return matchesHeaders(binding.arguments, headers);
      default:
        return binding.key === key;
    }
  }
}

/** `*` stands for one word, `#` for any number of words. */
function matchesTopic(
  pattern: readonly string[],
  patternFrom: number,
  words: readonly string[],
  wordsFrom: number,
): boolean {
  if (patternFrom === pattern.length) return wordsFrom === words.length;
  const part = pattern[patternFrom]!;
  if (part === "#") {
    for (let from = wordsFrom; from <= words.length; from++) {
      if (matchesTopic(pattern, patternFrom + 1, words, from)) return true;
    }
    return false;
  }
  if (wordsFrom === words.length || (part !== "*" && part !== words[wordsFrom])) return false;
  return matchesTopic(pattern, patternFrom + 1, words, wordsFrom + 1);
}

/** Arguments that begin with "x-" say how to match and are not matched themselves. */
function matchesHeaders(wanted: FieldTable, headers: FieldTable): boolean {
  const pairs = Object.entries(wanted).filter(([name]) => !name.startsWith("x-"));
  const matches = ([name, value]: (typeof pairs)[number]) =>
    Object.hasOwn(headers, name) && (value === null || headers[name] === value);
  return wanted["x-match"] === "any" ? pairs.some(matches) : pairs.every(matches);
}
