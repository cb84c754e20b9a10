import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { MillraceError } from "../../errors.ts";
import { pathProblem, pathToRead, pathToWrite, placeOf } from "./path.ts";

function folder(t: TestContext): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), "millrace-path-")));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const code = (wanted: string) => (error: unknown) => error instanceof MillraceError && error.code === wanted;

test("a path stays within its folder by its words", () => {
  for (const [path, what] of [
    ["../x", /leads out/],
    ["a/../../x", /leads out/],
    ["a\\..\\x", /leads out/],
    ["..", /leads out/],
    ["/etc/passwd", /absolute/],
    ["nul\0", /NUL/],
    ["x".repeat(256), /longer than 255 bytes/],
    ["ö".repeat(128), /longer than 255 bytes/],
    ["a/", /names a folder/],
    [".", /names a folder/],
  ] as const) {
    const [problem] = pathProblem("file sink", path);
    assert.equal(problem?.code, "option-invalid");
    assert.match(problem.message, what);
  }
  assert.match(pathProblem("file sink", "x".repeat(252), ".torn")[0]!.message, /longer than 250/);
  for (const path of ["a", "a/b.ndjson", "..a", "a..b", "x".repeat(255), "./a"]) {
    assert.deepEqual(pathProblem("file sink", path), [], path);
  }
  // What is no text, or none, the schema tells.
  assert.deepEqual(
    [undefined, "", 5].flatMap((path) => pathProblem("file sink", path)),
    [],
  );
});

test("a file has one place, whatever root, path and links lead to it", (t) => {
  const root = folder(t);
  mkdirSync(join(root, "in"));
  symlinkSync(join(root, "in"), join(root, "link"));
  writeFileSync(join(root, "in", "there"), "");
  symlinkSync(join(root, "in", "there"), join(root, "alias"));
  const place = placeOf(root, "in/new/file");
  assert.equal(place, join(root, "in", "new", "file"));
  for (const [base, path] of [
    [root, "./in//new/file"],
    [join(root, "in"), "new/file"],
    [`${root}/in/../link/`, "new/file"],
    [root, "link/new/file"],
  ] as const) {
    assert.equal(placeOf(base, path), place, `${base} ${path}`);
  }
  assert.equal(placeOf(root, "alias"), placeOf(root, "in/there"));
  assert.notEqual(placeOf(root, "in/new"), place);
  for (const none of [undefined, "", 5, "a\0", "../a"]) assert.equal(placeOf(root, none), undefined);
});

test("what is read is there, within the root, and nothing is made for it", async (t) => {
  const root = folder(t);
  const outside = folder(t);
  writeFileSync(join(outside, "secret"), "");
  mkdirSync(join(root, "in"));
  writeFileSync(join(root, "in", "file"), "");
  symlinkSync(join(root, "in", "file"), join(root, "within"));
  symlinkSync(join(outside, "secret"), join(root, "out"));
  symlinkSync(outside, join(root, "folder"));
  assert.equal(await pathToRead(root, "in/file"), join(root, "in", "file"));
  assert.equal(await pathToRead(root, "within"), join(root, "in", "file"));
  for (const path of ["out", "folder/secret"])
    await assert.rejects(pathToRead(root, path), code("access-refused"));
  await assert.rejects(pathToRead(root, "new/none"), code("target-missing"));
  await assert.rejects(pathToRead(join(root, "none"), "x"), code("target-missing"));
  assert.equal(existsSync(join(root, "new")), false);
  assert.equal(existsSync(join(root, "none")), false);
});

test("what is written is within the root, whose folders are made; and none is made outside", async (t) => {
  const root = folder(t);
  const outside = folder(t);
  assert.equal(await pathToWrite(join(root, "new"), "a/b/file"), join(root, "new", "a", "b", "file"));
  assert.ok(existsSync(join(root, "new", "a", "b")));
  mkdirSync(join(root, "real"));
  symlinkSync(join(root, "real"), join(root, "within"));
  assert.equal(await pathToWrite(root, "within/deep/file"), join(root, "real", "deep", "file"));
  symlinkSync(outside, join(root, "folder"));
  writeFileSync(join(outside, "secret"), "");
  symlinkSync(join(outside, "secret"), join(root, "link"));
  for (const path of ["folder/file", "folder/deep/file", "link"]) {
    await assert.rejects(pathToWrite(root, path), code("access-refused"), path);
  }
  assert.equal(existsSync(join(outside, "deep")), false);
  writeFileSync(join(root, "file"), "");
  await assert.rejects(pathToWrite(root, "file/below"), code("disk-failed"));
});

test("the root itself may be a link", async (t) => {
  const root = folder(t);
  mkdirSync(join(root, "real"));
  symlinkSync(join(root, "real"), join(root, "link"));
  assert.equal(await pathToWrite(join(root, "link"), "file"), join(root, "real", "file"));
});
