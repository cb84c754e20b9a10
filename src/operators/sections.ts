import type { Flowing } from "../component/operator.ts";
import type { Chunk } from "../message/chunk.ts";

/** What came between two controls. The control that ends it goes on once nothing of it is open. */
export interface Section {
  /** What was entered and has not left. */
  open: number;
  /** Results that wait for the controls before them, in the order in which they left. */
  readonly ready: Chunk[];
  /** Undefined in the last section alone. */
  control: Flowing | undefined;
}

/**
 * Keeps controls in their place where messages may overtake each other: a control stays behind what came before it
 * and ahead of what came after. Nothing of a lane whose epoch is over goes on.
 */
export class Sections {
  readonly #emit: (item: Flowing) => void;
  /** Never empty: what comes now belongs to the last one. */
  #sections: Section[] = [newSection()];

  constructor(emit: (item: Flowing) => void) {
    this.#emit = emit;
  }

  /** Nothing is open, and no control waits. */
  get empty(): boolean {
    return this.#sections.length === 1 && this.#sections[0]!.open === 0;
  }

  /** Something comes; whoever brings it calls {@link leave} or {@link drop} with its section. */
  enter(): Section {
    const section = this.#sections.at(-1)!;
    section.open++;
    return section;
  }

  /** It is ready to go on. */
  leave(section: Section, result: Chunk): void {
    section.open--;
    if (section === this.#sections[0]) this.#pass(result);
    else section.ready.push(result);
    this.release();
  }

  /** It does not go on; {@link release} must follow. */
  drop(section: Section): void {
    section.open--;
  }

  control(item: Flowing): void {
    this.#sections.at(-1)!.control = item;
    this.#sections.push(newSection());
    this.release();
  }

  /** Forgets everything. */
  clear(): void {
    this.#sections = [newSection()];
  }

  /** Lets go of every control that has nothing open before it, and of the results behind it. */
  release(): void {
    while (this.#sections[0]!.open === 0 && this.#sections.length > 1) {
      this.#emit(this.#sections.shift()!.control!);
      for (const chunk of this.#sections[0]!.ready.splice(0)) this.#pass(chunk);
    }
  }

  #pass(chunk: Chunk): void {
    if (chunk.live > 0 && !chunk.lane.ended) this.#emit(chunk);
  }
}

function newSection(): Section {
  return { open: 0, ready: [], control: undefined };
}
