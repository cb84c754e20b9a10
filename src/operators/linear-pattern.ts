/**
 * Regular expressions in time proportional to the text, for patterns that come with a schema and texts that come
 * from anyone. V8 backtracks: FHIR's own pattern for base64 takes it 2 s on 97 characters and ten times more for
 * every 12 further, while no heartbeat is sent.
 *
 * A pattern is taken apart into a program of single-character tests and branches, which is then run on all its
 * branches at once (Thompson's construction). The sets of branches met on the way are kept as states, so that a
 * character mostly costs one look into a table (a lazily built automaton). What one character matches is asked of
 * V8 itself, so `\s`, `\p{L}` or `[^a-z]` mean exactly what they mean in ECMAScript with the flag `u`.
 *
 * That answers only whether a pattern matches, which is all a schema asks. Look-around and back-references have no
 * such program and are refused.
 */

/** More steps than this come only from counted repetition of large parts, such as `(.{1,500}){1,500}`. */
const mostSteps = 20_000;
/** States kept; beyond it they are built anew, so that no pattern can fill the memory. */
const mostStates = 1_000;

/** Why a pattern that is valid cannot be matched in linear time. */
export class PatternRefusal extends Error {
  override readonly name = "PatternRefusal";
}

type Node =
  | { readonly kind: "set"; readonly source: string }
  | { readonly kind: "all" | "any"; readonly parts: readonly Node[] }
  | { readonly kind: "repeat"; readonly body: Node; readonly min: number; readonly max: number }
  | { readonly kind: "assert"; readonly what: Assertion };

const Assertion = { start: 0, end: 1, boundary: 2, inside: 3 } as const;
type Assertion = (typeof Assertion)[keyof typeof Assertion];

/** What stands before or after a place in the text. */
const Side = { edge: 0, word: 1, other: 2 } as const;
type Side = (typeof Side)[keyof typeof Side];

/** The instructions of a program; `match` ends it. */
const Op = { set: 0, split: 1, jump: 2, assert: 3, match: 4 } as const;

/** A set of places in the program where the text so far may have led, and what stands before the next character. */
interface State {
  readonly places: readonly number[];
  readonly before: Side;
  readonly onAscii: (State | undefined)[];
  readonly onOther: Map<number, State>;
  atEnd: boolean | undefined;
}

/** Whatever follows. */
const matched: State = { places: [], before: Side.other, onAscii: [], onOther: new Map(), atEnd: true };
const failed: State = { ...matched, atEnd: false };

export class LinearPattern {
  readonly source: string;
  readonly #ops: number[] = [];
  /** Per instruction: the set, the assertion, or where to go on. */
  readonly #first: number[] = [];
  /** Where a split goes on otherwise. */
  readonly #second: number[] = [];
  readonly #sets: CharacterSet[] = [];
  readonly #states = new Map<string, State>();
  readonly #anchored: boolean;
  readonly #start: State;

  /** Throws a SyntaxError for what is no pattern, and a {@link PatternRefusal} for one that has no linear form. */
  constructor(source: string) {
    this.source = source;
    this.#emit(new PatternParser(source).parse(), new Map());
    this.#add(Op.match, 0);
    this.#anchored = ![Side.edge, Side.word, Side.other].some((after) =>
      [Side.word, Side.other].some((before) => this.#reach([0], before, after).length > 0),
    );
    this.#start = this.#state([0], Side.edge);
  }

  /** Whether the pattern matches anywhere in the text. */
  test(text: string): boolean {
    let state = this.#start;
    for (let i = 0; i < text.length; i++) {
      let character = text.charCodeAt(i);
      if (character >= 0xd800 && character < 0xdc00) {
        character = text.codePointAt(i)!;
        if (character > 0xffff) i++;
      }
      const known = character < 128 ? state.onAscii[character] : state.onOther.get(character);
      state = known ?? this.#step(state, character);
      if (state === matched) return true;
      if (state === failed) return false;
    }
    state.atEnd ??= this.#reach(state.places, state.before, Side.edge).includes(-1);
    return state.atEnd;
  }

  toString(): string {
    return `/${this.source}/u`;
  }

  #step(state: State, character: number): State {
    const after = isWord(character) ? Side.word : Side.other;
    const reached = this.#reach(state.places, state.before, after);
    let next = matched;
    if (!reached.includes(-1)) {
      const places = reached.filter((at) => this.#sets[this.#first[at]!]!.has(character)).map((at) => at + 1);
      // A match may begin anywhere, unless the pattern can only begin at the start.
      if (!this.#anchored && !places.includes(0)) places.unshift(0);
      next = places.length === 0 ? failed : this.#state(places, after);
    }
    if (character < 128) state.onAscii[character] = next;
    else if (state.onOther.size < mostStates) state.onOther.set(character, next);
    return next;
  }

  #state(places: readonly number[], before: Side): State {
    const name = `${before}:${places.join()}`;
    let state = this.#states.get(name);
    if (state === undefined) {
      if (this.#states.size >= mostStates) this.#forget();
      state = { places, before, onAscii: new Array(128), onOther: new Map(), atEnd: undefined };
      this.#states.set(name, state);
    }
    return state;
  }

  /** States point at each other, so all of them must let go. */
  #forget(): void {
    for (const state of [this.#start, ...this.#states.values()]) {
      state.onAscii.fill(undefined);
      state.onOther.clear();
    }
    this.#states.clear();
  }

  /** The `set` instructions that can be reached without a character, in ascending order; −1 among them for a match. */
  #reach(places: readonly number[], before: Side, after: Side): number[] {
    const seen = new Set<number>();
    const reached: number[] = [];
    const open = [...places];
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      if (seen.has(at)) continue;
      seen.add(at);
      switch (this.#ops[at]) {
        case Op.set:
          reached.push(at);
          break;
        case Op.match:
          reached.push(-1);
          break;
        case Op.jump:
          open.push(this.#first[at]!);
          break;
        case Op.split:
          open.push(this.#first[at]!, this.#second[at]!);
          break;
        default:
          if (holds(this.#first[at] as Assertion, before, after)) open.push(at + 1);
      }
    }
    return reached.sort((a, b) => a - b);
  }

  #add(op: number, first: number, second = 0): number {
    if (this.#ops.length >= mostSteps) throw new PatternRefusal("it repeats large parts too often");
    this.#ops.push(op);
    this.#first.push(first);
    this.#second.push(second);
    return this.#ops.length - 1;
  }

  #emit(node: Node, setIndexes: Map<string, number>): void {
    switch (node.kind) {
      case "set": {
        let index = setIndexes.get(node.source);
        if (index === undefined) {
          index = this.#sets.push(new CharacterSet(node.source)) - 1;
          setIndexes.set(node.source, index);
        }
        this.#add(Op.set, index);
        break;
      }
      case "assert":
        this.#add(Op.assert, node.what);
        break;
      case "all":
        for (const part of node.parts) this.#emit(part, setIndexes);
        break;
      case "any": {
        const jumps: number[] = [];
        for (const part of node.parts.slice(0, -1)) {
          const split = this.#add(Op.split, this.#ops.length + 1);
          this.#emit(part, setIndexes);
          jumps.push(this.#add(Op.jump, 0));
          this.#second[split] = this.#ops.length;
        }
        this.#emit(node.parts.at(-1)!, setIndexes);
        for (const jump of jumps) this.#first[jump] = this.#ops.length;
        break;
      }
      case "repeat": {
        for (let i = 0; i < node.min; i++) this.#emit(node.body, setIndexes);
        if (node.max === Number.POSITIVE_INFINITY) {
          const split = this.#add(Op.split, this.#ops.length + 1);
          this.#emit(node.body, setIndexes);
          this.#add(Op.jump, split);
          this.#second[split] = this.#ops.length;
          break;
        }
        const splits: number[] = [];
        for (let i = node.min; i < node.max; i++) {
          splits.push(this.#add(Op.split, this.#ops.length + 1));
          this.#emit(node.body, setIndexes);
        }
        for (const split of splits) this.#second[split] = this.#ops.length;
      }
    }
  }
}

/** What one part of a pattern matches: a letter, `.`, `\d`, `[a-z]`. */
class CharacterSet {
  readonly #pattern: RegExp;
  readonly #ascii = new Int8Array(128).fill(-1);

  constructor(source: string) {
    this.#pattern = new RegExp(`^${source}$`, "u");
  }

  has(character: number): boolean {
    if (character >= 128) return this.#pattern.test(String.fromCodePoint(character));
    if (this.#ascii[character] === -1) {
      this.#ascii[character] = this.#pattern.test(String.fromCharCode(character)) ? 1 : 0;
    }
    return this.#ascii[character] === 1;
  }
}

function holds(what: Assertion, before: Side, after: Side): boolean {
  if (what === Assertion.start) return before === Side.edge;
  if (what === Assertion.end) return after === Side.edge;
  const boundary = (before === Side.word) !== (after === Side.word);
  return what === Assertion.boundary ? boundary : !boundary;
}

function isWord(character: number): boolean {
  return character < 128 && /\w/.test(String.fromCharCode(character));
}

/** Takes a pattern apart that V8 has found valid with the flag `u`, so it need not find mistakes itself. */
class PatternParser {
  readonly #source: string;
  #at = 0;

  constructor(source: string) {
    new RegExp(source, "u");
    this.#source = source;
  }

  parse(): Node {
    const parts = [this.#sequence()];
    while (this.#source[this.#at] === "|") {
      this.#at++;
      parts.push(this.#sequence());
    }
    return parts.length === 1 ? parts[0]! : { kind: "any", parts };
  }

  #sequence(): Node {
    const parts: Node[] = [];
    while (this.#at < this.#source.length && !"|)".includes(this.#source[this.#at]!)) {
      parts.push(this.#repeated(this.#part()));
    }
    return { kind: "all", parts };
  }

  #repeated(body: Node): Node {
    const [found, sign, from, rest, to] = this.#match(/([*+?]|\{(\d+)(,?)(\d*)\})\??/y) ?? [];
    if (found === undefined) return body;
    if (sign === "*") return { kind: "repeat", body, min: 0, max: Number.POSITIVE_INFINITY };
    if (sign === "+") return { kind: "repeat", body, min: 1, max: Number.POSITIVE_INFINITY };
    if (sign === "?") return { kind: "repeat", body, min: 0, max: 1 };
    const min = Number(from);
    const max = rest === "" ? min : to === "" ? Number.POSITIVE_INFINITY : Number(to);
    return { kind: "repeat", body, min, max };
  }

  #part(): Node {
    switch (this.#source[this.#at]) {
      case "^":
        return this.#assertion(Assertion.start, 1);
      case "$":
        return this.#assertion(Assertion.end, 1);
      case "(":
        return this.#group();
      case "\\":
        return this.#escape();
      case "[":
        return { kind: "set", source: this.#match(/\[(?:\\.|[^\]\\])*\]/suy)![0] };
      default:
        return { kind: "set", source: this.#match(/./suy)![0] };
    }
  }

  #assertion(what: Assertion, length: number): Node {
    this.#at += length;
    return { kind: "assert", what };
  }

  #group(): Node {
    const [opening] = this.#match(/\((?:\?(?::|<[^=!>]+>|<?[=!]|))?/y)!;
    if (/[=!]$/.test(opening)) throw new PatternRefusal("it looks ahead or behind");
    if (opening.endsWith("?")) throw new PatternRefusal("it changes flags within");
    const body = this.parse();
    this.#at++;
    return body;
  }

  #escape(): Node {
    const letter = this.#source[this.#at + 1]!;
    if (letter === "b") return this.#assertion(Assertion.boundary, 2);
    if (letter === "B") return this.#assertion(Assertion.inside, 2);
    if (/[k1-9]/.test(letter)) throw new PatternRefusal("it refers back to what a group matched");
    // Two escaped surrogates are one character.
    const pair = /\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}/y;
    const single = /\\(?:[pPu]\{[^}]*\}|u[\da-fA-F]{4}|x[\da-fA-F]{2}|c[A-Za-z]|.)/suy;
    return { kind: "set", source: (this.#match(pair) ?? this.#match(single))![0] };
  }

  /** What the sticky expression matches here, and moves past it. */
  #match(expression: RegExp): RegExpExecArray | undefined {
    expression.lastIndex = this.#at;
    const match = expression.exec(this.#source);
    if (match === null) return undefined;
    this.#at += match[0].length;
    return match;
  }
}
