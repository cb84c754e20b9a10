/**
 * The import law and a few more rules of the sources. `npm run check` runs this too. What each rule forbids is
 * shown by made-up files at the end: a rule that lets its own example pass is a failing test.
 */
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

interface SourceFile {
  /** From the repository's root, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** Says what is wrong with a file, if anything is. */
type Rule = (file: SourceFile) => string[];

/** A folder may import from itself and from folders further left; folders of one column not from each other. */
const columns = [
  ["message"],
  ["component"],
  ["operators", "connectors", "topology"],
  ["runtime"],
  ["runner"],
];
const columnOf = new Map(columns.flatMap((folders, column) => folders.map((folder) => [folder, column])));
const law = columns.map((folders) => folders.join(" | ")).join(" → ");

/** Client libraries, each imported only below its `src/connectors/<connector>/drivers/<driver>`. */
const clients = new Map([
  ["kafkajs", "kafkajs"],
  ["amqplib", "amqplib"],
  ["@platformatic/kafka", "wire"],
  ["pg", "postgres"],
]);

const { dependencies, peerDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
  dependencies: Record<string, string>;
  peerDependencies: Record<string, string>;
};
const packages = { ...dependencies, ...peerDependencies };

const isTest = (path: string) => /\.(test|property)\.ts$/.test(path);
const isSource = (path: string) => path.startsWith("src/") && !isTest(path);
const partOf = (path: string) => path.split("/")[1]!;
/** Files of this repository that a file imports, from its root. */
const ownImportsOf = ({ path, text }: SourceFile) =>
  specifiers(text)
    .filter((name) => name.startsWith("."))
    .map((name) => posix.join(dirname(path), name));
const packageImportsOf = ({ text }: SourceFile) =>
  specifiers(text).filter((name) => !(name.startsWith(".") || name.startsWith("node:")));

const importLaw: Rule = (file) => {
  const from = partOf(file.path);
  if (!isSource(file.path) || from === "testing") return [];
  const mayImport = (target: string): boolean => {
    const to = partOf(target);
    if (to === "errors.ts" || to === from) return true;
    if (from === "errors.ts") return false;
    if (from === "index.ts") return columnOf.has(to) && to !== "runner";
    if (from === "runner" && to === "index.ts") return true;
    const [fromColumn, toColumn] = [columnOf.get(from), columnOf.get(to)];
    return fromColumn !== undefined && toColumn !== undefined && toColumn < fromColumn;
  };
  return ownImportsOf(file)
    .filter((target) => target.startsWith("src/") && !mayImport(target))
    .map((target) => `imports ${target}, against the import law ${law}`);
};

const testKitImportsNoRunner: Rule = (file) =>
  file.path.startsWith("src/testing/") && isSource(file.path)
    ? ownImportsOf(file)
        .filter((target) => target.startsWith("src/runner/") || !target.startsWith("src/"))
        .map((target) => `imports ${target}: the test kit may import what is left of the runner`)
    : [];

const sourcesImportNoTests: Rule = (file) =>
  isSource(file.path)
    ? ownImportsOf(file)
        .filter((target) => isTest(target) || !target.startsWith("src/"))
        .map((target) => `imports ${target}, which no user of the package has`)
    : [];

const everyFileHasItsPlace: Rule = ({ path }) => {
  const part = partOf(path);
  const known =
    columnOf.has(part) ||
    ["index.ts", "index.test.ts", "errors.ts", "errors.test.ts", "testing", "README.md"].includes(part);
  return path.startsWith("src/") && !known ? [`lies outside the folders of the import law ${law}`] : [];
};

const connectorsAreStrangers: Rule = (file) => {
  const folder = /^src\/connectors\/[^/]+\//.exec(file.path)?.[0];
  if (folder === undefined || isTest(file.path)) return [];
  return ownImportsOf(file)
    .filter((target) => /^src\/connectors\/[^/]+\//.test(target) && !target.startsWith(folder))
    .map((target) => `imports ${target}: a connector does not know another one`);
};

const logicKnowsNoDriver: Rule = (file) => {
  const [, rest] = /^src\/connectors\/[^/]+\/(.+)$/.exec(file.path) ?? [];
  if (rest === undefined || rest === "index.ts" || rest.startsWith("drivers/") || isTest(file.path))
    return [];
  return ownImportsOf(file)
    .filter((target) => target.includes("/drivers/"))
    .map((target) => `imports ${target}: only the connector's index.ts chooses drivers`);
};

const clientsStayInTheirDriver: Rule = (file) => {
  if (!isSource(file.path)) return [];
  return packageImportsOf(file).flatMap((target) => {
    const driver = clients.get(packageOf(target));
    if (driver === undefined || inDriver(file.path, driver)) return [];
    return [`imports ${target}, which belongs to drivers/${driver}/ of a connector`];
  });
};

const packagesAreDependencies: Rule = (file) => {
  if (!isSource(file.path)) return [];
  const allowed = file.path.startsWith("src/testing/") ? ["fast-check"] : [];
  return packageImportsOf(file)
    .filter((target) => !(packageOf(target) in packages || allowed.includes(packageOf(target))))
    .map((target) => `imports ${target}, which is not a dependency of the package`);
};

const noGrabBags: Rule = ({ path }) =>
  path
    .split("/")
    .filter((segment) => /^(utils?|helpers?|common|shared|lib|misc)(\.|$)/i.test(segment))
    .map((segment) => `"${segment}" names nothing: name the idea`);

/** A simulation drives time and chance; so the sources take both from the context. */
const realTimeAndChance = [
  /\bDate\.now\b/,
  /\bnew Date\(\)/,
  /\bperformance\.now\b/,
  /\bhrtime\b/,
  /(?<![.\w])(globalThis\.)?(setTimeout|setInterval|setImmediate)\(/,
  /["']node:timers(\/promises)?["']/,
  /\bAbortSignal\.timeout\(/,
  /\bMath\.random\b/,
  /\b(randomUUID|randomBytes|randomInt|getRandomValues)\(/,
];

const timeAndChanceComeFromTheContext: Rule = ({ path, text }) => {
  const isExempt =
    ["src/component/system.ts", "src/testing/clock.ts"].includes(path) ||
    path.startsWith("src/runner/") ||
    (path.includes("/drivers/") && !inDriver(path, "embedded"));
  if (!isSource(path) || isExempt) return [];
  return withoutComments(text)
    .split("\n")
    .flatMap((line, index) =>
      realTimeAndChance
        .flatMap((forbidden) => forbidden.exec(line)?.[0] ?? [])
        .map((found) => `line ${index + 1}: ${found}: take it from the context (clock, random)`),
    );
};

const exportsAreNamed: Rule = ({ path, text }) =>
  path.startsWith("src/") && /^\s*export\s+(type\s+)?\*/m.test(withoutComments(text))
    ? ["export *: what is public is named, one by one"]
    : [];

const rules = {
  importLaw,
  testKitImportsNoRunner,
  sourcesImportNoTests,
  everyFileHasItsPlace,
  connectorsAreStrangers,
  logicKnowsNoDriver,
  clientsStayInTheirDriver,
  packagesAreDependencies,
  noGrabBags,
  timeAndChanceComeFromTheContext,
  exportsAreNamed,
} satisfies Record<string, Rule>;

function inDriver(path: string, driver: string): boolean {
  return /\/drivers\/([^/.]+)/.exec(path)?.[1] === driver;
}

function packageOf(specifier: string): string {
  return specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/");
}

/** What a file imports: static, dynamic, re-exported, types only, `require`d; each as it is written. */
function specifiers(text: string): string[] {
  const forms = [
    /(?:^|[\s;}])(?:import|export)\s[^"'`;]*?\sfrom\s*["']([^"']+)["']/g,
    /(?:^|[\s;}])import\s*["']([^"']+)["']/g,
    /\b(?:import|require)\(\s*["']([^"']+)["']/g,
  ];
  const code = withoutComments(text);
  return forms.flatMap((form) => [...code.matchAll(form)].map((match) => match[1]!));
}

/** Strings and regular expressions are recognized so that what looks like a comment in them stays. */
function withoutComments(text: string): string {
  const string = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/;
  const regex = /(?<=[(,=:[!&|?{};\n]\s*|return\s+)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\//;
  const comment = /\/\/[^\n]*|\/\*[\s\S]*?\*\//;
  const token = new RegExp(`${string.source}|${regex.source}|(?<comment>${comment.source})`, "g");
  return text.replace(token, (found, ...rest) => {
    const { comment } = rest.at(-1) as { comment?: string };
    return comment === undefined ? found : comment.replace(/[^\n]/g, " ");
  });
}

const files: SourceFile[] = globSync("{src,test,topologies,bench,bin,.ci}/**/*.{ts,js,mjs}", { cwd: root })
  .map((path) => path.replaceAll("\\", "/"))
  .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));

for (const [name, rule] of Object.entries(rules)) {
  test(`the sources keep the rule ${name}`, () => {
    assert.ok(files.length > 0, "no source file was found");
    const violations = files.flatMap((file) => rule(file).map((what) => `${file.path}: ${what}`));
    assert.deepEqual(violations, []);
  });
}

const allowed: Record<string, string> = {
  "src/errors.ts": 'import { inspect } from "node:util";',
  "src/message/lane.ts": 'import { fail } from "../errors.ts"; import { outcome } from "./outcome.ts";',
  "src/connectors/kafka/drivers/kafkajs/driver.ts": 'import { Kafka } from "kafkajs"; setTimeout(go, 1);',
  "src/connectors/kafka/drivers/wire/connection.ts": 'import { Connection } from "@platformatic/kafka";',
  "src/connectors/kafka/index.ts": 'import { driver } from "./drivers/kafkajs/driver.ts";',
  "src/operators/a.ts": 'import type { Chunk } from "../message/chunk.ts"; context.clock.setTimeout(go, 1);',
  "src/operators/b.ts":
    '// Date.now() would break the simulation\n/* import { x } from "../runner/cli.ts" */',
  "src/operators/c.test.ts":
    'import { run } from "../runtime/run.ts"; import fc from "fast-check"; Date.now();',
  "src/operators/d.ts":
    'const pattern = /["`]/; const url = "http://*"; // Math.random()\nexport { pattern };',
  "src/runtime/run.ts": 'import { plan } from "../topology/plan.ts"; import { Observable } from "rxjs";',
  "src/runner/cli.ts": 'import * as millrace from "../index.ts"; setInterval(report, 1_000);',
  "src/index.ts": 'export { run } from "./runtime/run.ts"; export type { Chunk } from "./message/chunk.ts";',
  "src/testing/bed.ts": 'import { run } from "../runtime/run.ts"; import fc from "fast-check";',
  "src/component/system.ts": "const now = () => performance.now();",
  "bench/run.ts": 'import { Kafka } from "kafkajs"; Date.now();',
};

test("the rules allow what they should", () => {
  for (const [path, text] of Object.entries(allowed)) {
    const said = Object.values<Rule>(rules).flatMap((rule) => rule({ path, text }));
    assert.deepEqual(said, [], path);
  }
});

const forbidden: [keyof typeof rules, path: string, text: string][] = [
  ["importLaw", "src/message/lane.ts", 'import type { Source } from "../component/source.ts";'],
  ["importLaw", "src/component/sink.ts", 'export { compress } from "../operators/compress.ts";'],
  ["importLaw", "src/operators/dedup.ts", 'import { plan } from "../topology/plan.ts";'],
  ["importLaw", "src/operators/dedup.ts", 'import {\n  kafka,\n} from "../connectors/kafka/index.ts";'],
  ["importLaw", "src/connectors/kafka/sink.ts", 'import { key } from "../../operators/key.ts";'],
  ["importLaw", "src/topology/plan.ts", 'const kafka = await import("../connectors/kafka/index.ts");'],
  ["importLaw", "src/runtime/run.ts", 'import "../runner/cli.ts";'],
  ["importLaw", "src/runtime/run.ts", 'import { simulated } from "../testing/clock.ts";'],
  ["importLaw", "src/runtime/run.ts", 'import { run } from "../index.ts";'],
  ["importLaw", "src/index.ts", 'export { main } from "./runner/cli.ts";'],
  ["importLaw", "src/errors.ts", 'import { Lane } from "./message/lane.ts";'],
  ["testKitImportsNoRunner", "src/testing/bed.ts", 'import { main } from "../runner/cli.ts";'],
  ["sourcesImportNoTests", "src/runtime/run.ts", 'import { startKafka } from "../../test/brokers/kafka.ts";'],
  ["sourcesImportNoTests", "src/runtime/run.ts", 'import { given } from "./credit.test.ts";'],
  ["everyFileHasItsPlace", "src/tools/x.ts", ""],
  ["connectorsAreStrangers", "src/connectors/kafka/sink.ts", 'import { x } from "../rabbitmq/sink.ts";'],
  ["logicKnowsNoDriver", "src/connectors/kafka/sink.ts", 'import { x } from "./drivers/kafkajs/driver.ts";'],
  ["clientsStayInTheirDriver", "src/connectors/kafka/sink.ts", 'import { Kafka } from "kafkajs";'],
  ["clientsStayInTheirDriver", "src/connectors/kafka/drivers/embedded/x.ts", 'import x from "kafkajs/y.js";'],
  [
    "clientsStayInTheirDriver",
    "src/connectors/kafka/drivers/kafkajs/x.ts",
    'import x from "@platformatic/kafka";',
  ],
  ["clientsStayInTheirDriver", "src/runtime/run.ts", 'const { connect } = require("amqplib");'],
  ["packagesAreDependencies", "src/runtime/run.ts", 'import fc from "fast-check";'],
  ["packagesAreDependencies", "src/runtime/run.ts", 'import { x } from "@nowhere/package/x.js";'],
  ["noGrabBags", "src/operators/utils.ts", ""],
  ["noGrabBags", "test/helpers/x.ts", ""],
  ["noGrabBags", "bench/common.test.ts", ""],
  ["timeAndChanceComeFromTheContext", "src/operators/a.ts", "const now = Date.now();"],
  ["timeAndChanceComeFromTheContext", "src/operators/a.ts", "const now = new Date();"],
  ["timeAndChanceComeFromTheContext", "src/runtime/a.ts", "const at = performance.now();"],
  ["timeAndChanceComeFromTheContext", "src/runtime/a.ts", "  setTimeout(go, 10);"],
  ["timeAndChanceComeFromTheContext", "src/runtime/a.ts", "globalThis.setInterval(go, 10);"],
  [
    "timeAndChanceComeFromTheContext",
    "src/runtime/a.ts",
    'import { setTimeout } from "node:timers/promises";',
  ],
  ["timeAndChanceComeFromTheContext", "src/runtime/a.ts", "const id = Math.random().toString(36);"],
  ["timeAndChanceComeFromTheContext", "src/runtime/a.ts", "const id = randomUUID();"],
  ["timeAndChanceComeFromTheContext", "src/connectors/kafka/drivers/embedded/a.ts", "setTimeout(go, 10);"],
  ["exportsAreNamed", "src/index.ts", 'export * from "./errors.ts";'],
  ["exportsAreNamed", "src/index.ts", 'export type * from "./errors.ts";'],
];

for (const [name, path, text] of forbidden) {
  test(`${name} forbids ${path}: ${text.replaceAll("\n", " ")}`, () => {
    assert.notDeepEqual(rules[name]({ path, text }), []);
  });
}
