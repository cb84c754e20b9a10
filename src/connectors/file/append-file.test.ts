import assert from "node:assert/strict";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { MillraceError } from "../../errors.ts";
import { settlePromises } from "../../testing/clock.ts";
import { AppendFile, type AppendHandle } from "./append-file.ts";

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "millrace-append-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Opens and closes a file; how many torn bytes were moved. */
async function repair(path: string): Promise<number> {
  let moved = 0;
  await AppendFile.open(path, (bytes) => {
    moved = bytes;
  });
  await AppendFile.close(path);
  return moved;
}

const never = () => assert.fail("nothing is torn");

test("what was torn is moved aside, and what was whole stays", async (t) => {
  const path = join(folder(t), "out");
  for (const [content, whole] of [
    ["", ""],
    ["one\n", "one\n"],
    ["one\ntwo\n\n", "one\ntwo\n\n"],
    ["one\ntw", "one\n"],
    ["on", ""],
    [`one\n${"x".repeat(200_000)}`, "one\n"],
    // The line feed ends a block of 64 KiB.
    [`one\n${"x".repeat(65_536)}`, "one\n"],
  ] as const) {
    rmSync(`${path}.torn`, { force: true });
    writeFileSync(path, content);
    assert.equal(await repair(path), content.length - whole.length);
    assert.equal(readFileSync(path, "utf8"), whole);
    const torn = content.slice(whole.length);
    if (torn === "") assert.equal(existsSync(`${path}.torn`), false);
    else assert.equal(readFileSync(`${path}.torn`, "utf8"), `${torn}\n`);
  }
  appendFileSync(path, "more");
  await repair(path);
  assert.match(readFileSync(`${path}.torn`, "utf8"), /^x+\nmore\n$/);
});

test("several sinks of one file share it, and the last one closes it", async (t) => {
  const path = join(folder(t), "out");
  const [one, two] = await Promise.all([AppendFile.open(path, never), AppendFile.open(path, never)]);
  assert.equal(one, two);
  await Promise.all([
    one.append(Buffer.from("1\n")),
    two.append(Buffer.from("2\n")),
    one.append(Buffer.from("3\n")),
  ]);
  await AppendFile.close(path);
  await two.append(Buffer.from("4\n"));
  await AppendFile.close(path);
  await assert.rejects(two.append(Buffer.from("5\n")));
  const three = await AppendFile.open(path, never);
  assert.notEqual(three, one);
  await three.append(Buffer.from("6\n"));
  await AppendFile.close(path);
  assert.equal(readFileSync(path, "utf8"), "1\n2\n3\n4\n6\n");
});

test("what is no file, and what cannot be opened, is said; and it may be tried again", async (t) => {
  const root = folder(t);
  const path = join(root, "out");
  const fails = (what: RegExp) =>
    assert.rejects(
      AppendFile.open(path, never),
      (error) => error instanceof MillraceError && error.code === "disk-failed" && what.test(error.message),
    );
  mkdirSync(path);
  await fails(/EISDIR/);
  rmSync(path, { recursive: true });
  // Not even one that leads nowhere yet.
  symlinkSync(join(root, "elsewhere"), path);
  await fails(/ELOOP/);
  assert.equal(existsSync(join(root, "elsewhere")), false);
  rmSync(path);
  assert.equal(await repair(path), 0);
});

/** A file whose disk does as it is told: each number is how many bytes the next write takes before it fails. */
class FaultyHandle implements AppendHandle {
  readonly faults: (number | "sync" | "none")[] = [];
  readonly #handle: FileHandle;
  stat: AppendHandle["stat"];
  read: AppendHandle["read"];
  truncate: AppendHandle["truncate"];
  close: AppendHandle["close"];

  constructor(handle: FileHandle) {
    this.#handle = handle;
    this.stat = handle.stat.bind(handle) as AppendHandle["stat"];
    this.read = handle.read.bind(handle) as AppendHandle["read"];
    this.truncate = handle.truncate.bind(handle);
    this.close = handle.close.bind(handle);
  }

  write = (async (bytes: Buffer, offset: number, length: number) => {
    const fault = this.faults[0];
    if (typeof fault !== "number") return this.#handle.write(bytes, offset, length);
    // A short write first, and then the failure, as the system call does it.
    if (fault > 0 && offset === 0) return this.#handle.write(bytes, 0, Math.min(fault, length));
    this.faults.shift();
    throw Object.assign(new Error("EIO: i/o error, write"), { code: "EIO" });
  }) as unknown as AppendHandle["write"];

  async datasync(): Promise<void> {
    if (this.faults.shift() === "sync")
      throw Object.assign(new Error("EIO: i/o error, fsync"), { code: "EIO" });
    await this.#handle.datasync();
  }
}

test("property: after any failures the file has each line once, whole and in order", async (t) => {
  const path = join(folder(t), "out");
  const fault = fc.oneof(fc.nat(8), fc.constantFrom("sync" as const, "none" as const));
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { maxLength: 12 }), async (faults) => {
      rmSync(path, { force: true });
      const handle = new FaultyHandle(await open(path, "a+"));
      handle.faults.push(...faults);
      const file = new AppendFile(handle);
      let expected = "";
      for (let i = 0; i < 4; i++) {
        const lines = `a${i}\nb${i}\n`;
        expected += lines;
        for (let attempts = 0; ; attempts++) {
          assert.ok(attempts <= faults.length);
          try {
            await file.append(Buffer.from(lines));
            break;
          } catch (error) {
            assert.equal((error as { code?: unknown }).code, "EIO");
          }
        }
        assert.equal(readFileSync(path, "utf8"), expected);
      }
      await handle.close();
    }),
    { numRuns: 150 },
  );
});

/** A file in memory, each of whose syncs waits to be let through: what is asked of it, in order. */
function slowFile() {
  const asked: string[] = [];
  const syncs: (() => void)[] = [];
  let size = 0;
  const handle = {
    stat: async () => ({ size }),
    write: async (bytes: Buffer, offset: number, length: number) => {
      asked.push(`write ${bytes.subarray(offset, offset + length)}`);
      size += length;
      return { bytesWritten: length };
    },
    datasync: () => {
      asked.push("sync");
      return new Promise<void>((resolve) => syncs.push(resolve));
    },
  } as unknown as AppendHandle;
  return { file: new AppendFile(handle), asked, syncs };
}

test("lines are on the disk when an append resolves, and the next write waits for that", async () => {
  const { file, asked, syncs } = slowFile();
  const done: number[] = [];
  for (const [i, line] of ["a", "b"].entries()) file.append(Buffer.from(line)).then(() => done.push(i));
  await settlePromises();
  assert.deepEqual([asked, done], [["write a", "sync"], []]);
  syncs[0]!();
  await settlePromises();
  assert.deepEqual([asked, done], [["write a", "sync", "write b", "sync"], [0]]);
  syncs[1]!();
  await settlePromises();
  assert.deepEqual(done, [0, 1]);
});
