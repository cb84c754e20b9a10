import { type Chunk, Fork } from "../message/chunk.ts";

/**
 * Copies of a chunk for the branches of a fan-out, which is what using a stream more than once means. Each
 * branch has columns of its own over the same records; a message settles once every branch has settled its
 * copy, with the worst of their outcomes.
 */
export function fanOut(chunk: Chunk, branches: number): Chunk[] {
  const fork = new Fork(chunk, branches);
  return Array.from({ length: branches }, () => fork.branch());
}
