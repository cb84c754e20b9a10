import assert from "node:assert/strict";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { run } from "./brokers/run.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");

interface Manifest {
  readonly license: string;
  readonly exports: {
    readonly [name in "." | "./testing"]: { readonly types: string; readonly default: string };
  };
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
  /** A project with the packed package in its node_modules, beside what it depends on. */
  readonly project: string;
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
  const to = ["--pack-destination", folder];
  const { stdout } = await run("npm", ["pack", folder, ...to, "--json", "--ignore-scripts"]);
  const [description] = JSON.parse(stdout) as [{ filename: string; files: { path: string }[] }];
  const project = await install(join(folder, description.filename));
  return { folder, project, files: description.files.map(({ path }) => path) };
}

/** Unpacks the package as npm would install it; its dependencies are those of this repository. */
async function install(tarball: string): Promise<string> {
  const project = mkdtempSync(join(tmpdir(), "millrace-project-"));
  process.once("exit", () => rmSync(project, { recursive: true, force: true }));
  const modules = join(project, "node_modules");
  mkdirSync(join(modules, "millrace"), { recursive: true });
  await run("tar", ["-xzf", tarball, "-C", join(modules, "millrace"), "--strip-components=1"]);
  // Only what the package says it needs; what these need in turn is found where the links lead.
  for (const name of Object.keys(manifest.dependencies)) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(modules, name));
  }
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }');
  return project;
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

test("whatever the package exports is in it, with types", async () => {
  const { files } = await pack();
  assert.deepEqual(Object.keys(manifest.exports), [".", "./testing", "./package.json"]);
  for (const name of [".", "./testing"] as const) {
    const { types, default: module } = manifest.exports[name];
    assert.deepEqual(
      [types, module].filter((path) => !files.includes(path.replace(/^\.\//, ""))),
      [],
    );
    assert.match(types, /\.d\.ts$/);
  }
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

/** A topology of a project that has the package installed. */
const flow = `import { decode, kafka, key, topology, validate } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
const schema = { type: "object", required: ["id"], properties: { id: { type: "string" } } } as const;
export default topology("flow", (t) => {
  t.from(cluster.source({ topics: ["flow.in"], group: "flow" }))
    .pipe(decode("json"), validate(schema), key((m) => m.id))
    .to(cluster.sink({ topic: "flow.out" }));
  t.deadLetters(cluster.sink({ topic: "flow.dead" }));
});
`;

test("the packed program runs a topology of a project that has it installed", async () => {
  const { project } = await pack();
  writeFileSync(join(project, "flow.ts"), flow);
  writeFileSync(join(project, "in.ndjson"), '{"id":"a"}\n{"id":"b"}\nnot json\n');
  const bin = join("node_modules/millrace", manifest.bin.millrace!);
  const feed = ["--feed", "flow.in=in.ndjson"];
  const args = ["run", "flow.ts", "--embedded", ...feed, "--until-idle", "--dump", "out"];
  const { stdout } = await run("node", [bin, ...args], { cwd: project });
  assert.match(stdout, /\naccepted 3 = delivered 2 \+ deadLettered 1\n$/);
  const written = readFileSync(join(project, "out/flow.out.ndjson"), "utf8").trim().split("\n");
  assert.deepEqual(written.map((line) => JSON.parse(line).key).sort(), ["a", "b"]);
});

test("a project that has it installed has its types, which find a wrong field", async () => {
  const { project } = await pack();
  const compilerOptions = {
    strict: true,
    noEmit: true,
    module: "nodenext",
    target: "es2024",
    types: [],
    skipLibCheck: false,
  };
  writeFileSync(
    join(project, "tsconfig.json"),
    JSON.stringify({ compilerOptions, files: ["right.ts", "wrong.ts"] }),
  );
  writeFileSync(join(project, "right.ts"), flow);
  writeFileSync(join(project, "wrong.ts"), flow.replace("m.id", "m.ident"));
  const complaints = await run(join(root, "node_modules/.bin/tsc"), [
    "-p",
    project,
    "--pretty",
    "false",
  ]).then(
    () => [],
    ({ message }: Error) => message.split("\n").filter((line) => line.includes("error TS")),
  );
  assert.equal(complaints.length, 1, complaints.join("\n"));
  assert.match(complaints[0]!, /wrong\.ts.*'ident' does not exist/);
});

test("nothing but the package's name and its package.json can be imported", async () => {
  const { project, files } = await pack();
  const open = await imports(project, "millrace/package.json");
  assert.equal(open, "imported");
  for (const path of ["dist/index.js", "dist/runner/main.js", "bin/millrace.js"]) {
    assert.ok(files.includes(path));
    assert.equal(await imports(project, `millrace/${path}`), "ERR_PACKAGE_PATH_NOT_EXPORTED");
  }
});

test("the licence is MIT, in words too", () => {
  assert.equal(manifest.license, "MIT");
  assert.match(read("LICENSE"), /^MIT License\n\nCopyright \(c\) \d{4} The Millrace authors\n/);
  assert.match(read("LICENSE"), /Permission is hereby granted, free of charge/);
  assert.match(read("README.md"), /Licence: MIT\./);
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

test("amqplib, whose inside the RabbitMQ driver uses, is of exactly the version that was tried", () => {
  assert.match(manifest.dependencies.amqplib ?? "", /^\d+\.\d+\.\d+$/);
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

/** "imported", or the code of the error. */
async function imports(project: string, specifier: string): Promise<string> {
  const script = `import(${JSON.stringify(specifier)}, ${
    specifier.endsWith(".json") ? '{ with: { type: "json" } }' : "{}"
  }).then(() => console.log("imported"), ({ code }) => console.log(code))`;
  const { stdout } = await run("node", ["--input-type=module", "-e", script], { cwd: project });
  return stdout.trim();
}

function isTypeScriptSource(path: string): boolean {
  return path.endsWith(".ts") && !path.endsWith(".d.ts");
}
