import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { MillraceError } from "../../errors.ts";
import { Checkpoint } from "./checkpoint.ts";

/** A folder with a data file in it; `at` opens the checkpoint and closes the data when the test ends. */
function begin(t: TestContext, content: string | Buffer) {
  const folder = mkdtempSync(join(tmpdir(), "millrace-checkpoint-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const data = join(folder, "data");
  const path = join(folder, "data.at");
  writeFileSync(data, content);
  return {
    folder,
    data,
    path,
    async at(unended = false): Promise<Checkpoint> {
      const handle = await open(data);
      t.after(() => handle.close());
      return Checkpoint.open(path, handle, unended);
    },
  };
}

const mismatch = (error: unknown) => error instanceof MillraceError && error.code === "target-mismatch";

test("what was saved is where the next one starts, at the beginning of a line", async (t) => {
  const { at } = begin(t, "one\ntwo\nthree");
  assert.equal((await at()).start, 0);
  for (const [position, start] of [
    [4, 4],
    [7, 4],
    [8, 8],
    [12, 8],
    [13, 8],
  ] as const) {
    await (await at()).save(position);
    assert.equal((await at()).start, start, String(position));
  }
});

test("a last line without a line feed is behind where it counted and all is settled, until the file grows", async (t) => {
  const { at, data } = begin(t, "one\ntwo");
  await (await at()).save(7);
  assert.equal((await at(true)).start, 7);
  assert.equal((await at(false)).start, 4);
  await (await at()).save(6);
  writeFileSync(data, "one\ntwo2");
  assert.equal((await at(true)).start, 4);
});

test("it goes forward only, and writes nothing that is written already", async (t) => {
  const { at, path } = begin(t, "one\ntwo\nthree\n");
  const checkpoint = await at();
  await checkpoint.save(0);
  assert.equal(existsSync(path), false);
  await Promise.all([checkpoint.save(8), checkpoint.save(4), checkpoint.save(8)]);
  assert.equal((await at()).start, 8);
  rmSync(path);
  await checkpoint.save(8);
  assert.equal(existsSync(path), false);
});

test("a line of many blocks is found again from any byte of it", async (t) => {
  const long = "x".repeat(200_000);
  const { at } = begin(t, `first\n${long}\nlast\n`);
  // One of them so that the line feed before ends a block of 64 KiB.
  for (const position of [7, 65_536, 65_536 + 6, 131_073, 200_006]) {
    await (await at()).save(position);
    assert.equal((await at()).start, 6, String(position));
  }
});

test("a file that took another's place is noticed, one that grew is not taken for another", async (t) => {
  const { at, data } = begin(t, "one\ntwo\n");
  await (await at()).save(4);
  writeFileSync(data, "one\ntwo\nthree\n");
  assert.equal((await at()).start, 4);
  writeFileSync(data, "uno\ntwo\n");
  await assert.rejects(at(), (error) => mismatch(error) && /begins differently/.test(String(error)));
  writeFileSync(data, "one");
  await assert.rejects(at(), (error) => mismatch(error) && /3 bytes long .* byte 4/.test(String(error)));
  writeFileSync(data, "");
  await assert.rejects(at(), mismatch);
});

test("a file is known by its first 4 KiB, whatever follows", async (t) => {
  const head = `${"h".repeat(4_095)}\n`;
  const { at, data } = begin(t, `${head}old\n`);
  const checkpoint = await at();
  await checkpoint.save(4_096);
  await checkpoint.save(4_100);
  writeFileSync(data, `${head}new\nmore\n`);
  assert.equal((await at()).start, 4_100);
});

test("a file that is no checkpoint is not taken for one, and not overwritten", async (t) => {
  const { at, path, data } = begin(t, "one\n");
  for (const content of [
    "",
    "one\ntwo\n",
    "17\n",
    "{}",
    '{"position":-1,"head":""}',
    '{"position":1}',
    "[]",
    "null",
  ]) {
    writeFileSync(path, content);
    await assert.rejects(at(), mismatch, content);
    assert.equal(readFileSync(path, "utf8"), content);
  }
  rmSync(path);
  mkdirSync(path);
  await assert.rejects(at(), mismatch);
  assert.equal(readFileSync(data, "utf8"), "one\n");
});

test("what cannot be saved is said, and the old checkpoint stays; a later save may succeed", async (t) => {
  const { at, path, folder } = begin(t, "one\ntwo\nthree\n");
  const checkpoint = await at();
  await checkpoint.save(4);
  const before = readFileSync(path);
  // Where the draft goes there is a link, which is not followed, and then a folder.
  symlinkSync(join(folder, "elsewhere"), `${path}.draft`);
  await assert.rejects(
    checkpoint.save(8),
    (error) => error instanceof MillraceError && error.code === "disk-failed",
  );
  assert.equal(existsSync(join(folder, "elsewhere")), false);
  rmSync(`${path}.draft`);
  mkdirSync(`${path}.draft`);
  await assert.rejects(checkpoint.save(8), /cannot be written/);
  assert.deepEqual(readFileSync(path), before);
  rmSync(`${path}.draft`, { recursive: true });
  await checkpoint.save(8);
  assert.equal((await at()).start, 8);
  assert.equal(existsSync(`${path}.draft`), false);
});

test("property: reading goes on at the line that the saved position lies in", async (t) => {
  const lines = fc.array(fc.nat(20), { minLength: 1, maxLength: 12 });
  const bed = begin(t, "");
  await fc.assert(
    fc.asyncProperty(lines, fc.nat(), fc.boolean(), async (lengths, pick, ended) => {
      rmSync(bed.path, { force: true });
      const content = lengths.map((length) => "y".repeat(length)).join("\n") + (ended ? "\n" : "");
      writeFileSync(bed.data, content);
      const position = pick % (content.length + 1);
      await (await bed.at()).save(position);
      assert.equal((await bed.at()).start, content.slice(0, position).lastIndexOf("\n") + 1);
    }),
    { numRuns: 100 },
  );
});

test("a checkpoint is synced before it takes the place of the old one", async (t) => {
  const { at, data, path } = begin(t, "one\ntwo\n");
  const checkpoint = await at();
  const handle = await open(data);
  t.after(() => handle.close());
  const files = Object.getPrototypeOf(handle) as { sync(): Promise<void> };
  let synced = 0;
  t.mock.method(files, "sync", async () => {
    assert.equal(existsSync(path), false, "nobody sees it yet");
    synced++;
  });
  await checkpoint.save(4);
  assert.equal(synced, 1);
  assert.ok(existsSync(path));
});
