import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "./brokers/run.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");

interface Manifest {
  readonly bin: Record<string, string>;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
}

interface Lock {
  readonly packages: Record<
    string,
    { readonly resolved?: string; readonly optionalDependencies?: Record<string, string> }
  >;
}

const manifest = JSON.parse(read("package.json")) as Manifest;
const lock = JSON.parse(read("package-lock.json")) as Lock;

interface Packed {
  readonly folder: string;
  readonly files: readonly string[];
}

let packing: Promise<Packed> | undefined;

/** Built in a folder of its own: neither an old dist nor someone who builds meanwhile changes the verdict. */
function pack(): Promise<Packed> {
  packing ??= buildAndPack();
  return packing;
}

async function buildAndPack(): Promise<Packed> {
  const folder = mkdtempSync(join(tmpdir(), "millrace-package-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const inputs = [
    "package.json",
    "tsconfig.json",
    "tsconfig.build.json",
    "README.md",
    "LICENSE",
    "src",
    "bin",
  ];
  for (const name of inputs.filter((name) => existsSync(join(root, name)))) {
    cpSync(join(root, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  await run(join(root, "node_modules/.bin/tsc"), ["-p", join(folder, "tsconfig.build.json")]);
  const { stdout } = await run("npm", ["pack", folder, "--dry-run", "--json", "--ignore-scripts"]);
  const [description] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  return { folder, files: description.files.map(({ path }) => path) };
}

test("the package holds the program, the library and its types", async () => {
  const { files } = await pack();
  const wanted = [
    "bin/millrace.js",
    "dist/index.js",
    "dist/index.d.ts",
    "package.json",
    "README.md",
    "LICENSE",
  ];
  assert.deepEqual(
    wanted.filter((path) => !files.includes(path)),
    [],
  );
});

test("the package holds no tests, no sources and nothing beside bin and dist", async () => {
  const { files } = await pack();
  const expected = /^(bin|dist)\/|^(package\.json|README\.md|LICENSE)$/;
  assert.deepEqual(
    files.filter(
      (path) => !expected.test(path) || /\.(test|property)\./.test(path) || isTypeScriptSource(path),
    ),
    [],
  );
});

test("the package can be imported by its name from what was built", async () => {
  const { folder } = await pack();
  const script = 'import("millrace").then((millrace) => console.log(Object.keys(millrace).length))';
  const { stdout } = await run("node", ["--input-type=module", "-e", script], { cwd: folder });
  assert.ok(Number(stdout) > 0, "it exports nothing");
});

test("every program of the package is committed as executable plain JavaScript", async () => {
  for (const path of Object.values(manifest.bin)) {
    assert.match(path, /\.js$/);
    assert.match(read(path), /^#!\/usr\/bin\/env node\n/);
    assert.equal(statSync(join(root, path)).mode & 0o777, 0o755);
    const { stdout } = await run("git", ["-C", root, "ls-files", "--stage", "--", path]);
    assert.match(stdout, /^100755 /);
  }
});

test("every dependency is explained in the README's table of dependencies", () => {
  const rows = read("README.md")
    .split("\n")
    .filter((line) => line.startsWith("|"));
  const names = Object.keys(manifest.dependencies);
  assert.deepEqual(
    names.filter((name) => !rows.some((row) => row.includes(`\`${name}\``))),
    [],
  );
});

test("the lock file names no registry, so that it works with anyone's", () => {
  const resolved = Object.entries(lock.packages).filter(([, { resolved }]) => resolved?.includes("://"));
  assert.deepEqual(resolved, []);
});

test("the lock file lists the binaries of every platform, or npm ci refuses it", () => {
  const missing = Object.entries(lock.packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !(`node_modules/${name}` in lock.packages || `${path}/node_modules/${name}` in lock.packages),
    ),
  );
  assert.deepEqual(missing, []);
});

function isTypeScriptSource(path: string): boolean {
  return path.endsWith(".ts") && !path.endsWith(".d.ts");
}
