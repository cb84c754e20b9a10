import kafkajs from "kafkajs";
import { type Compression, compressTask, decompressTask, offloadFrom } from "../../../../component/codec.ts";
import type { Task, Work } from "../../../../component/context.ts";

const { CompressionCodecs, CompressionTypes } = kafkajs;

/** The most that one fetched record batch may become; a broker's own limit is far below in practice. */
const maxBatchBytes = 256 * 2 ** 20;

/** What of kafkajs' growing buffer a codec needs. */
interface EncoderLike {
  readonly buffer: Buffer;
}

/**
 * Gives kafkajs all four codecs, with a limit on what a batch may become: its own list has gzip alone, without
 * one, and any other codec would stop its consumer for good. The list belongs to the process, so the latest
 * `work` serves all clients. Snappy is written in xerial's stream format, as Java's producer does.
 */
export function registerCodecs(work: Work): void {
  const run = <T>(size: number, from: number, task: Task<T>): Promise<T> =>
    size >= from ? work.run(task) : Promise.resolve().then(() => task.run());
  const register = (type: keyof typeof CompressionCodecs, codec: Compression) => {
    CompressionCodecs[type] = () => ({
      compress: ({ buffer }: EncoderLike) =>
        run(buffer.length, offloadFrom[codec].compress, compressTask(codec, buffer, { snappy: "xerial" })),
      decompress: (buffer: Buffer) =>
        run(
          buffer.length,
          offloadFrom[codec].restore,
          decompressTask(codec, buffer, { maxBytes: maxBatchBytes }),
        ),
    });
  };
  register(CompressionTypes.GZIP, "gzip");
  register(CompressionTypes.Snappy, "snappy");
  register(CompressionTypes.LZ4, "lz4");
  register(CompressionTypes.ZSTD, "zstd");
}
