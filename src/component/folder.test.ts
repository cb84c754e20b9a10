import assert from "node:assert/strict";
import { existsSync, mkdtempSync, realpathSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makeFolder } from "./folder.ts";

test("a folder is made with all it is in, and one that is there is left as it is", (t) => {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "millrace-folder-")));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const deep = join(root, "a", "b", "c");
  makeFolder(deep);
  assert.ok(statSync(deep).isDirectory());
  writeFileSync(join(deep, "kept"), "");
  makeFolder(deep);
  assert.ok(existsSync(join(deep, "kept")));
  const file = join(deep, "kept");
  assert.throws(() => makeFolder(file), /kept is no folder/);
  assert.throws(() => makeFolder(join(file, "x")), /kept is no folder/);
  symlinkSync(join(root, "nowhere"), join(root, "dangling"));
  assert.throws(() => makeFolder(join(root, "dangling")), /EEXIST/);
  assert.throws(() => makeFolder(join(root, "dangling", "x")), /EEXIST/);
});

test("where no folder can be made it says so, and does not try for ever", {
  skip: !existsSync("/proc/self"),
}, () => {
  assert.throws(() => makeFolder("/proc/millrace"), /ENOENT|EACCES|EPERM/);
  assert.throws(() => makeFolder("/proc/millrace/deeper"), /ENOENT|EACCES|EPERM/);
});
