/**
 * A text while many splices go into it. A plain string is copied as a whole by each splice; here it is kept in
 * pieces, so that a splice costs a piece and a walk over their number.
 */

/** Code units of a piece, as first cut. */
const PIECE_UNITS = 4096;
/** A piece that grew past this is cut again. */
const MAX_PIECE_UNITS = 4 * PIECE_UNITS;

/** @internal A string under construction. Indexes are UTF-16 code units; callers keep them within bounds. */
export class TextBuilder {
  #pieces: string[];
  #length: number;

  constructor(text: string) {
    this.#pieces = cut(text);
    this.#length = text.length;
  }

  get length(): number {
    return this.#length;
  }

  /** The code unit at an index. */
  unitAt(index: number): number {
    const [piece, offset] = this.#find(index);
    return (this.#pieces[piece] ?? "").charCodeAt(offset);
  }

  /** Whether an index lies between the halves of a surrogate pair. */
  splitsPair(index: number): boolean {
    if (index <= 0 || index >= this.#length) return false;
    return isHigh(this.unitAt(index - 1)) && isLow(this.unitAt(index));
  }

  splice(index: number, remove: number, insert: string): void {
    const [first, offset] = this.#find(index);
    let last = first;
    let end = offset + remove;
    // Pieces that are covered in full go as a whole.
    while (end > (this.#pieces[last] ?? "").length && last < this.#pieces.length - 1) {
      end -= (this.#pieces[last] ?? "").length;
      last += 1;
    }
    const piece = (this.#pieces[first] ?? "").slice(0, offset) + insert + (this.#pieces[last] ?? "").slice(end);
    if (piece.length > MAX_PIECE_UNITS) this.#pieces.splice(first, last - first + 1, ...cut(piece));
    else if (first === last) this.#pieces[first] = piece;
    else this.#pieces.splice(first, last - first + 1, piece);
    this.#length += insert.length - remove;
  }

  toString(): string {
    if (this.#pieces.length > 1) this.#pieces = [this.#pieces.join("")];
    const text = this.#pieces[0] ?? "";
    // Reading must not make the next splice expensive.
    if (text.length > MAX_PIECE_UNITS) this.#pieces = cut(text);
    return text;
  }

  /** The piece that an index is in, and where in it. The end of the text belongs to the last piece. */
  #find(index: number): [piece: number, offset: number] {
    let offset = index;
    let at = 0;
    for (; at < this.#pieces.length - 1; at += 1) {
      const { length } = this.#pieces[at] ?? "";
      if (offset < length) break;
      offset -= length;
    }
    return [at, offset];
  }
}

function cut(text: string): string[] {
  if (text.length <= PIECE_UNITS) return [text];
  const pieces: string[] = [];
  for (let at = 0; at < text.length; at += PIECE_UNITS) pieces.push(text.slice(at, at + PIECE_UNITS));
  return pieces;
}

/** @internal The first half of a surrogate pair. */
export function isHigh(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

/** @internal The second half of a surrogate pair. */
export function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}
