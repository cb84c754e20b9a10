import type { Mutant } from "./mutants.ts";

/** Files: lines that are on the disk, and checkpoints. */
export const files: readonly Mutant[] = [
  {
    name: "file: lines count as written before they are on the disk",
    breaks: "A5",
    file: "src/connectors/file/append-file.ts",
    text: "    await this.#handle.datasync();\n    this.#undoTo = undefined;",
    becomes: "    this.#undoTo = undefined;",
    killer: {
      file: "src/connectors/file/append-file.test.ts",
      test: "lines are on the disk when an append resolves, and the next write waits for that",
    },
  },
  {
    name: "file: a failed write leaves its bytes",
    breaks: "A5",
    file: "src/connectors/file/append-file.ts",
    text: "    if (this.#undoTo !== undefined) await this.#handle.truncate(this.#undoTo);\n",
    becomes: "",
    killer: {
      file: "src/connectors/file/append-file.test.ts",
      test: "property: after any failures the file has each line once, whole and in order",
    },
  },
  {
    name: "file: writes overlap",
    breaks: "B1",
    file: "src/connectors/file/append-file.ts",
    text: "    const write = this.#last.then(() => this.#write(bytes));",
    becomes: "    const write = this.#write(bytes);",
    killer: {
      file: "src/connectors/file/append-file.test.ts",
      test: "lines are on the disk when an append resolves, and the next write waits for that",
    },
  },
  {
    name: "file: a short write is taken for a whole one",
    breaks: "A5",
    file: "src/connectors/file/append-file.ts",
    text: "      at += (await this.#handle.write(bytes, at, bytes.length - at)).bytesWritten;",
    becomes: "      await this.#handle.write(bytes, at, bytes.length - at);\n      at = bytes.length;",
    killer: {
      file: "src/connectors/file/append-file.test.ts",
      test: "property: after any failures the file has each line once, whole and in order",
    },
  },
  {
    name: "file: a torn line is gone on with",
    breaks: "A5",
    file: "src/connectors/file/append-file.ts",
    text: "    if (whole < status.size) {",
    becomes: "    if (whole > status.size) {",
    killer: {
      file: "src/connectors/file/append-file.test.ts",
      test: "what was torn is moved aside, and what was whole stays",
    },
  },
  {
    name: "file: lines settle when their write fails",
    breaks: "A1",
    file: "src/connectors/file/sink.ts",
    text: "    if (taken.length > 0) await this.#untilWritten(Buffer.concat(pieces));",
    becomes: "    if (taken.length > 0) this.#untilWritten(Buffer.concat(pieces)).catch(() => {});",
    killer: {
      file: "src/connectors/file/file.test.ts",
      test: "what is no line is refused alone; the record form takes everything",
    },
  },
  {
    name: "file: a line with a line feed is two",
    breaks: "I3",
    file: "src/connectors/file/sink.ts",
    text: "  if (line.includes(lineFeed))\n",
    becomes: "  if (line.length < 0)\n",
    killer: {
      file: "src/connectors/file/file.test.ts",
      test: "what is no line is refused alone; the record form takes everything",
    },
  },
  {
    name: "file: what was read is saved as the checkpoint",
    breaks: "A1",
    file: "src/connectors/file/source.ts",
    text: "    await this.#memory?.save(this.#lane.checkpoint);",
    becomes: "    await this.#memory?.save(this.#lane.position);",
    killer: {
      file: "src/connectors/file/file.test.ts",
      test: "a message that is not settled holds the checkpoint, whatever is settled after it",
    },
  },
  {
    name: "file: the checkpoint on the way is what was read",
    breaks: "A1",
    file: "src/connectors/file/source.ts",
    text: "      this.#memory!.save(lane.checkpoint).catch((error) => this.#fail(error));",
    becomes: "      this.#memory!.save(lane.position).catch((error) => this.#fail(error));",
    killer: {
      file: "src/connectors/file/file.test.ts",
      test: "a moved checkpoint is written within a second, without being asked for",
    },
  },
  {
    name: "file: the checkpoint is written in place",
    breaks: "A6",
    file: "src/connectors/file/checkpoint.ts",
    text: "  const draft = ",
    becomes: "  const draft = path || ",
    killer: {
      file: "src/connectors/file/checkpoint.test.ts",
      test: "what cannot be saved is said, and the old checkpoint stays; a later save may succeed",
    },
  },
  {
    name: "file: the checkpoint is not synced",
    breaks: "A6",
    file: "src/connectors/file/checkpoint.ts",
    text: "    await handle.sync();\n",
    becomes: "",
    killer: {
      file: "src/connectors/file/checkpoint.test.ts",
      test: "a checkpoint is synced before it takes the place of the old one",
    },
  },
  {
    name: "file: the checkpoint goes back",
    breaks: "F2",
    file: "src/connectors/file/checkpoint.ts",
    text: "      if (position <= this.#saved) return;\n",
    becomes: "",
    killer: {
      file: "src/connectors/file/checkpoint.test.ts",
      test: "it goes forward only, and writes nothing that is written already",
    },
  },
  {
    name: "file: the checkpoint of another file counts",
    breaks: "A7",
    file: "src/connectors/file/checkpoint.ts",
    text: "        : saved.head !== undefined && saved.head !==",
    becomes: "        : saved.position < 0 && saved.head !==",
    killer: {
      file: "src/connectors/file/checkpoint.test.ts",
      test: "a file that took another's place is noticed, one that grew is not taken for another",
    },
  },
  {
    name: "file: reading goes on within a line",
    breaks: "A7",
    file: "src/connectors/file/checkpoint.ts",
    text: "    return new Checkpoint(path, data, ended ? size : await lineStart(data, saved.position));",
    becomes: "    return new Checkpoint(path, data, ended ? size : saved.position);",
    killer: {
      file: "src/connectors/file/checkpoint.test.ts",
      test: "property: reading goes on at the line that the saved position lies in",
    },
  },
  {
    name: "file: more is read while lines wait for credit",
    breaks: "E1",
    file: "src/connectors/file/source.ts",
    text: "      if (this.#context.intake.waiting(this.#lane) > 0) {",
    becomes: "      if (this.#context.intake.waiting(this.#lane) > 1e9) {",
    killer: {
      file: "src/connectors/file/file.test.ts",
      test: "reading waits for credit, and goes on as messages settle",
    },
  },
];
