/** What a connection carries, seen from the client: what it sends, and what it gets back. */
export type Direction = "request" | "reply";

/** A frame's name and its whole length in bytes, told from its beginning. */
export interface Frame {
  readonly kind: string;
  readonly length: number;
}

/** Tells what a frame is from its beginning; undefined while the bytes are too few. */
export type Look = (beginning: Buffer) => Frame | undefined;

/** How the frames of one connection are told apart; a protocol may match replies with requests. */
export type Protocol = () => Readonly<Record<Direction, Look>>;

/** Bytes that belong together; `kind` where they begin a frame, undefined where they go on with one. */
export interface Piece {
  readonly kind: string | undefined;
  readonly bytes: Buffer;
}

/** Finds where frames begin in bytes that come in any portions; holds back no more than a frame's beginning. */
export class FrameSplitter {
  readonly #look: Look;
  #beginning: Buffer = Buffer.alloc(0);
  /** Bytes of the current frame that are yet to come. */
  #left = 0;

  constructor(look: Look) {
    this.#look = look;
  }

  *split(portion: Buffer): Generator<Piece> {
    let rest = portion;
    while (rest.length > 0) {
      if (this.#left > 0) {
        const bytes = rest.subarray(0, this.#left);
        this.#left -= bytes.length;
        rest = rest.subarray(bytes.length);
        yield { kind: undefined, bytes };
        continue;
      }
      const known = this.#beginning.length === 0 ? rest : Buffer.concat([this.#beginning, rest]);
      const frame = this.#look(known);
      if (frame === undefined) {
        this.#beginning = known;
        return;
      }
      this.#beginning = Buffer.alloc(0);
      const bytes = known.subarray(0, frame.length);
      this.#left = frame.length - bytes.length;
      rest = known.subarray(bytes.length);
      yield { kind: frame.kind, bytes };
    }
  }
}
