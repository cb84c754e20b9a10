import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import * as rxjs from "rxjs";
import * as millrace from "../index.ts";
import { compileFiles, load } from "./load.ts";
import { formatProblems, type Problem } from "./problem.ts";
import { Topology } from "./topology.ts";

/** Writes files into a folder far from the repository, and removes it after the test. */
function folderOf(t: TestContext, files: Readonly<Record<string, string>>): (name: string) => string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "millrace-load-")));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return (name) => join(folder, name);
}

const shown = (problems: readonly Problem[], path: (name: string) => string) =>
  formatProblems(problems, path("."))
    .split("\n")
    .filter((line) => line !== "");

const sound = (name: string) => `
import { kafka, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:9092" });
export default topology("${name}", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "g" })).to(cluster.sink({ topic: "out" }));
});
`;

test("a file anywhere loads, and millrace in it is this copy, whatever is installed beside it", async (t) => {
  const path = folderOf(t, {
    "orders.ts": `${sound("orders")}
      import * as all from "millrace";
      import { answer } from "neighbour";
      import { deep } from "./deep/more.ts";
      export const seen: typeof all = all;
      export const others: unknown[] = [answer, deep];`,
    "deep/more.ts": `import { topology } from "millrace"; export const deep = topology;`,
    "node_modules/millrace/package.json": '{ "name": "millrace", "type": "module", "exports": "./index.js" }',
    "node_modules/millrace/index.js": "throw new Error('the wrong copy');",
    "node_modules/neighbour/package.json":
      '{ "name": "neighbour", "type": "module", "exports": "./index.js" }',
    "node_modules/neighbour/index.js": "export const answer = 42;",
  });
  const { topology, problems } = await load(path("orders.ts"));
  assert.deepEqual(problems, []);
  assert.ok(topology instanceof Topology);
  assert.equal(topology.name, "orders");
  assert.deepEqual(topology.location, { file: path("orders.ts"), line: 4, column: 16 });
  const loaded = await import(path("orders.ts"));
  assert.equal(loaded.seen, millrace);
  assert.deepEqual(loaded.others, [42, millrace.topology]);
  assert.equal((await load(path("orders.ts"))).topology, topology, "a file is evaluated once");
});

test("RxJS in a topology is this package's, with none and with another installed beside it", async (t) => {
  const text = `${sound("rx")}
    import * as all from "rxjs";
    import { map } from "rxjs/operators";
    import { more } from "./more.ts";
    import { theirs } from "neighbour";
    export const seen: unknown[] = [all.Observable, map, more, theirs];`;
  const files = { "more.ts": 'import { Subject } from "rxjs"; export const more = Subject;' };
  const neighbour = {
    "node_modules/neighbour/package.json":
      '{ "name": "neighbour", "type": "module", "exports": "./index.js" }',
  };
  const alone = folderOf(t, {
    ...files,
    ...neighbour,
    "node_modules/neighbour/index.js": "export const theirs = 1;",
    "rx.ts": text,
  });
  const beside = folderOf(t, {
    ...files,
    ...neighbour,
    "node_modules/neighbour/index.js": 'export { Observable as theirs } from "rxjs";',
    "node_modules/rxjs/package.json": '{ "name": "rxjs", "type": "module", "exports": "./index.js" }',
    "node_modules/rxjs/index.js": 'export const Observable = "the other copy";',
    "rx.ts": text,
  });
  for (const [path, theirs] of [
    [alone, 1],
    [beside, "the other copy"],
  ] as const) {
    assert.deepEqual((await load(path("rx.ts"))).problems, []);
    const { seen } = await import(path("rx.ts"));
    assert.deepEqual(seen, [rxjs.Observable, rxjs.map, rxjs.Subject, theirs]);
  }
});

test("plain JavaScript loads too, and what package.json says of modules does not matter", async (t) => {
  const files = Object.fromEntries(
    ["ts", "mts", "js", "mjs"].flatMap((extension) =>
      ["none", "typeless", "commonjs", "module"].map((folder) => [
        `${folder}/a.${extension}`,
        sound(`${folder}.${extension}`),
      ]),
    ),
  );
  const path = folderOf(t, {
    ...files,
    "typeless/package.json": "{}",
    "commonjs/package.json": '{ "type": "commonjs" }',
    "module/package.json": '{ "type": "module" }',
  });
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on("warning", warned);
  t.after(() => process.off("warning", warned));
  const { plans, problems } = await compileFiles(Object.keys(files).map(path));
  assert.deepEqual(problems, []);
  assert.deepEqual(
    plans?.map(({ name }) => name),
    Object.keys(files).map((name) => name.replace("/a", "")),
  );
  await new Promise((resolve) => process.nextTick(resolve));
  assert.deepEqual(warnings, []);
});

test("a file reached by a symbolic link is named by its real path, as its stack traces do", async (t) => {
  const path = folderOf(t, {
    "real/package.json": '{ "type": "commonjs" }',
    "real/a.ts": 'import { topology } from "millrace";\nexport default topology("a", () => {});',
  });
  symlinkSync(path("real"), path("link"));
  const { problems } = await compileFiles([path("link/a.ts")]);
  assert.deepEqual(shown(problems, path), [
    'real/a.ts:2:16  error  topology-empty  the topology "a" has no flow  → lead a source to a sink: t.from(source).pipe(…).to(sink)',
  ]);
});

test("a file with five mistakes: five, each with its line", async (t) => {
  const path = folderOf(t, {
    "orders.ts": `import { decode, dedup, env, kafka, topology } from "millrace";

interface Order {
  readonly id: string;
}

const cluster = kafka({
  brokers: env("MILLRACE_TEST_BROKERS"),
});

export default topology("orders", (t) => {
  const orders = t
    .from(cluster.source({ topics: ["orders"], grup: "orders" }))
    .pipe(
      decode("json"),
      dedup({ id: (o: Order) => o.id, capacity: 100_000, tll: "10m" }),
      decode("json"),
    );
  orders.pipe(dedup({ id: (o: Order) => o.id, capacity: 1 }));
  orders.to(cluster.sink({ topic: "orders.accepted" }));
  t.deadLetters(cluster.sink({ topic: "orders.dead" }));
});
`,
  });
  const { plans, problems } = await compileFiles([path("orders.ts")]);
  assert.equal(plans, undefined);
  assert.deepEqual(shown(problems, path), [
    'orders.ts:8:12  error  env-missing  the environment variable MILLRACE_TEST_BROKERS is not set  → set MILLRACE_TEST_BROKERS, or give a default: env("MILLRACE_TEST_BROKERS", "…")',
    'orders.ts:13:19  error  option-unknown  kafka source has no option "grup"  → did you mean "group"?',
    'orders.ts:16:7  error  option-unknown  dedup has no option "tll"  → did you mean "ttl"?',
    "orders.ts:17:7  error  decode-repeated  decode-2 works on bytes, and gets the values that decode-1 has decoded  → remove it, or put it before the step that decodes",
    "orders.ts:19:15  error  topology-dangling  what comes out of dedup-2 leads nowhere  → lead it to a sink with .to(…), or remove it",
  ]);
});

/** Files that give no topology, and exactly what is to be said of each. */
const refused: Readonly<Record<string, readonly [text: string, said: string]>> = {
  "none.ts": [
    "export const a = 1;",
    "none.ts:1:1  error  file-no-topology  the file has no default export  → export default topology(…)",
  ],
  "named.ts": [
    'import { topology } from "millrace";\nexport const orders = topology("a", () => {});',
    'named.ts:1:1  error  file-no-topology  the file has no default export  → write export default before "orders"',
  ],
  "object.ts": [
    "export default { name: 'orders' };",
    "object.ts:1:1  error  file-no-topology  the default export is an object, not a topology  → export default topology(…)",
  ],
  "function.ts": [
    "export default () => {};",
    "function.ts:1:1  error  file-no-topology  the default export is a function, not a topology  → export default topology(…)",
  ],
  "promise.ts": [
    "export default Promise.resolve(1);",
    "promise.ts:1:1  error  file-no-topology  the default export is a promise, not a topology  → export default topology(…)",
  ],
  "copy.ts": [
    "class Topology {}\nexport default new Topology();",
    'copy.ts:1:1  error  file-no-topology  the topology was made by another copy of millrace  → import from "millrace", by that name',
  ],
  "syntax.ts": [
    "const a: number = 1;\nexport default a +* 2;",
    "syntax.ts:2:19  error  file-unreadable  the code is not valid: Expression expected  → correct the syntax",
  ],
  "syntax.mjs": [
    "const a = 1;\nexport default a +* 2;",
    "syntax.mjs:2:19  error  file-unreadable  the code is not valid: Unexpected token '*'  → correct the syntax",
  ],
  "imports-syntax.ts": [
    'import "./nested.ts";',
    "nested.ts:3:12  error  file-unreadable  the code is not valid: Expected ',', got '}'  → correct the syntax",
  ],
  "imports-syntax.mjs": [
    'import "./nested.mjs";',
    "nested.mjs:3:12  error  file-unreadable  the code is not valid: Unexpected token '}'  → correct the syntax",
  ],
  "enum.ts": [
    "\nenum Colour { red }\nexport default Colour;",
    "enum.ts:2:1  error  file-unreadable  TypeScript enum is not supported in strip-only mode  → use only syntax that vanishes when types are stripped: no enums, no namespaces",
  ],
  "typo.ts": [
    'import {\n  topologi } from "millrace";\nexport default topologi;',
    'typo.ts:2:3  error  file-unreadable  "millrace" exports no "topologi"  → did you mean "topology"?',
  ],
  "missing-name.ts": [
    'import { b } from "./none.ts";\nexport default b;',
    'missing-name.ts:1:10  error  file-unreadable  "./none.ts" exports no "b"  → check the name',
  ],
  "missing-package.ts": [
    'import "no-such-package";',
    "missing-package.ts:1:1  error  file-unreadable  an import cannot be resolved: Cannot find package 'no-such-package'  → check the path, with its file extension, or install the package",
  ],
  "imports-missing.ts": [
    'import "./missing-package.ts";',
    "missing-package.ts:1:1  error  file-unreadable  an import cannot be resolved: Cannot find package 'no-such-package'  → check the path, with its file extension, or install the package",
  ],
  "throws.ts": [
    "const o: undefined | { a: 1 } = undefined;\n\nexport default o!.a;",
    "throws.ts:3:19  error  author-error  the topology's code threw: Cannot read properties of undefined (reading 'a')  → correct the code, or what it was given",
  ],
  "throws-nothing.ts": [
    "throw undefined;\nexport default 1;",
    "throws-nothing.ts:1:1  error  author-error  the topology's code threw: undefined  → correct the code, or what it was given",
  ],
  "topology.yaml": [
    "name: orders",
    "topology.yaml:1:1  error  file-unreadable  this is not a file of code  → give a file that ends in .ts, .mts, .js, .mjs",
  ],
};

test("a file that gives no topology is refused with its place, the cause and what to do", async (t) => {
  const path = folderOf(t, {
    ...Object.fromEntries(Object.entries(refused).map(([name, [text]]) => [name, text])),
    "nested.ts": "export const a = [1,\n  2,\n  { b: 1 } }];\n",
    "nested.mjs": "export const a = [1,\n  2,\n  { b: 1 } }];\n",
  });
  for (const [name, [, said]] of Object.entries(refused)) {
    const { topology, problems } = await load(path(name));
    assert.equal(topology, undefined);
    const [line, ...others] = shown(problems, path);
    assert.deepEqual(others, []);
    assert.equal(line!.replaceAll(path("."), ""), said);
  }
});

test("a path that is no file is refused, with the one that is near", async (t) => {
  const path = folderOf(t, { "orders.ts": "", "orders.test.ts": "", "folder.ts/a": "" });
  const said = async (name: string) => shown((await load(path(name))).problems, path);
  assert.deepEqual(await said("ordes.ts"), [
    'ordes.ts:1:1  error  file-unreadable  there is no such file  → did you mean "orders.ts"?',
  ]);
  assert.deepEqual(await said("none/orders.ts"), [
    "none/orders.ts:1:1  error  file-unreadable  there is no such file  → give the path of a topology file",
  ]);
  assert.deepEqual(await said("folder.ts"), [
    "folder.ts:1:1  error  file-unreadable  this is not a file  → give the path of a topology file",
  ]);
});

test("an unset variable is a mistake of every file that imports the module which needs it", async (t) => {
  const user = `import { topology } from "millrace"; import { name } from "./cluster.ts";
    await new Promise((resolve) => setImmediate(resolve));
    export default topology("a", (t) => void name);`;
  const path = folderOf(t, {
    "cluster.ts": 'import { env } from "millrace";\nexport const name = env("MILLRACE_TEST_NAME");',
    "a.ts": `import { env } from "millrace"; ${user}\nenv("MILLRACE_TEST_OWN");`,
    "b.ts": user,
    "c.ts": 'export { default } from "./b.ts";',
    "d.ts": 'import { topology } from "millrace"; export default topology("d", () => {});',
  });
  const asked = async (name: string) =>
    shown((await load(path(name))).problems, path).map((line) => line.split("  → ")[0]);
  const shared =
    "cluster.ts:2:21  error  env-missing  the environment variable MILLRACE_TEST_NAME is not set";
  const own = "a.ts:4:1  error  env-missing  the environment variable MILLRACE_TEST_OWN is not set";
  assert.deepEqual(await Promise.all(["a.ts", "b.ts", "d.ts"].map(asked)), [[own, shared], [shared], []]);
  assert.deepEqual(await Promise.all(["a.ts", "c.ts", "d.ts"].map(asked)), [[own, shared], [shared], []]);
});

test("all files are loaded and compiled, whatever is wrong with one", async (t) => {
  const path = folderOf(t, {
    "a.ts": sound("same"),
    "b.ts": sound("same"),
    "c.ts": "export default 1;",
    "d.ts": sound("other").replace('["in"]', '["out"]'),
  });
  const { plans, problems } = await compileFiles(["a.ts", "b.ts", "c.ts", "d.ts", "e.ts"].map(path));
  assert.equal(plans, undefined);
  assert.deepEqual(
    shown(problems, path).map((line) => line.split("  ").slice(0, 3).join(" ")),
    [
      "b.ts:4:16 error topology-duplicate-name",
      "c.ts:1:1 error file-no-topology",
      "d.ts:5:59 error topology-cycle",
      "e.ts:1:1 error file-unreadable",
    ],
  );
});
