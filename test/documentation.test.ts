/** What README.md shows is true: every command in it is run here, every snippet is checked, its drawing is the topology's. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { ExitCode } from "../src/runner/exit-code.ts";
import { freePort } from "./brokers/port.ts";
import { run } from "./brokers/run.ts";
import { until } from "./brokers/until.ts";
import { freshFolder, runMillrace } from "./millrace.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const readme = readFileSync(join(root, "README.md"), "utf8");

function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, "gm"))].map(
    (match) => match[1]!,
  );
}

const commands = blocks("sh").flatMap((block) => block.trim().split("\n"));

/** Runs a line of the README as a reader would, in the repository unless told otherwise. */
function shell(line: string, cwd = root): Promise<{ stdout: string; stderr: string }> {
  const env = { ...process.env };
  delete env.NODE_OPTIONS;
  delete env.NODE_TEST_CONTEXT;
  return run("bash", ["-c", line], { cwd, env, within: 120_000 });
}

test("the README's commands are those that are tried here", () => {
  assert.deepEqual(commands, [
    "npm ci && npm start",
    "npm ci && npm test",
    "npx millrace check topologies/quakes.ts topologies/dicom.ts topologies/orders.ts",
    "npx millrace graph topologies/dicom.ts",
    "npx millrace run topologies/orders.ts --embedded --feed orders=topologies/data/orders.ndjson --until-idle",
    "npm run bench -- embedded --pairs 1",
  ]);
});

test("the README opens with what it does, a drawing, the two commands, a topology, the guarantees, a comparison, production", () => {
  const order = [
    "# Millrace\n\nMillrace runs **topologies**",
    "\n```mermaid\n",
    "\nnpm ci && npm start\n",
    "\nnpm ci && npm test\n",
    "\n## A topology\n\n```ts\n",
    "\n## What is guaranteed\n\n| | promise |",
    "\n## How it compares\n\n| | Millrace |",
    "\n## Going to production\n",
  ];
  const places = order.map((text) => readme.indexOf(text));
  assert.equal(places[0], 0);
  places.forEach((place, i) => {
    assert.ok(i === 0 || place > places[i - 1]!, `${JSON.stringify(order[i])} comes next`);
  });
  const headings = [...readme.matchAll(/^## (.+)$/gm)].map((match) => match[1]);
  assert.deepEqual(headings.slice(0, 5), [
    "A topology",
    "What is guaranteed",
    "How it compares",
    "Testing your own",
    "Going to production",
  ]);
});

test("npm start ends with the conservation table as the README quotes it, and leaves every topic in out/", async (t) => {
  const quoted = /`(accepted 5473 = [^`]+)`/.exec(readme)?.[1];
  assert.ok(quoted);
  // In a copy: what is in out/ here may be somebody's, or be left from another time.
  const folder = freshFolder(t);
  for (const name of ["package.json", "bin", "src", "topologies"])
    cpSync(join(root, name), join(folder, name), { recursive: true });
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
  const { stdout } = await shell("npm start", folder);
  assert.ok(stdout.trimEnd().endsWith(quoted), stdout.slice(-500));
  const left = ["quakes.polls", "quakes.versions", "quakes.dead"].map((topic) => {
    const text = readFileSync(join(folder, "out", `${topic}.ndjson`), "utf8");
    return text.split("\n").filter((line) => line !== "").length;
  });
  assert.deepEqual(left, [5_473, 564, 0]);
});

const ofTopologies = readFileSync(join(root, "topologies/README.md"), "utf8");
const examples = [...ofTopologies.matchAll(/^npx millrace run .+$/gm)].map(String);

test("every topology beside topologies/README.md has its command there", () => {
  const named = examples.join(" ");
  for (const file of globSync("topologies/**/*.ts", { cwd: root })) {
    if (
      file.endsWith(".test.ts") ||
      !/^export default topology\(/m.test(readFileSync(join(root, file), "utf8"))
    )
      continue;
    assert.ok(named.includes(file), file);
  }
});

for (const line of examples) {
  test(`${line.slice(0, 70)}… works, on its sample data`, async (t) => {
    // In a copy: the commands leave what their topics hold in out/.
    const folder = freshFolder(t);
    for (const name of ["package.json", "bin", "src", "topologies"])
      cpSync(join(root, name), join(folder, name), { recursive: true });
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    const { stdout, stderr } = await shell(line, folder);
    // Where the topology writes to standard output itself, the table is on the other.
    assert.match(`${stdout}${stderr}`, /^accepted [1-9]\d* = /m);
    assert.ok(readdirSync(join(folder, "out")).length > 0);
  });
}

test("git ignores what npm start leaves in out/", async () => {
  const { stdout } = await run("git", ["-C", root, "check-ignore", "out/quakes.versions.ndjson"]);
  assert.equal(stdout, "out/quakes.versions.ndjson\n");
});

test("every file of topologies/data has its source and licence noted, and the licences are there", () => {
  const data = join(root, "topologies/data");
  const notes = readFileSync(join(data, "README.md"), "utf8");
  const rows = notes.split("\n").filter((line) => line.startsWith("|"));
  const unnoted = readdirSync(data)
    .filter((name) => name !== "README.md" && !name.startsWith("LICENSE."))
    .filter((name) => {
      const row = rows.find((line) => line.split("|")[1]!.includes(`\`${name}\``));
      return !/public domain|MIT, see `LICENSE\.|made for this project/.test(row?.split("|")[3] ?? "");
    });
  assert.deepEqual(unnoted, []);
  const licences = [...notes.matchAll(/`(LICENSE\.[^`]+)`/g)].map((match) => match[1]!);
  assert.deepEqual(
    licences.toSorted(),
    readdirSync(data)
      .filter((name) => name.startsWith("LICENSE."))
      .toSorted(),
  );
  for (const name of licences)
    assert.match(readFileSync(join(data, name), "utf8"), /Permission is hereby granted/);
});

test("npm test is this run's own command", () => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    scripts: Record<string, string>;
  };
  assert.match(scripts.test ?? "", /\.ci\/test\.mjs$/);
});

for (const command of commands.filter((line) => line.startsWith("npx") || line.includes("bench"))) {
  test(`${command} works`, async () => {
    const { stdout } = await shell(command);
    assert.ok(stdout.length > 0);
    if (command.includes("millrace run"))
      assert.match(stdout, /^accepted [1-9]\d* = /m, "it shows something");
  });
}

test("the README's topology compiles and checks, and is short", async (t) => {
  const snippets = blocks("ts");
  assert.equal(snippets.length, 2);
  const file = join(freshFolder(t), "orders.ts");
  writeFileSync(file, snippets[0]!);
  const { code, stdout, stderr } = await runMillrace(t, ["check", file]);
  assert.equal(code, 0, `${stdout}${stderr}`);
  const body = snippets[0]!.split("export default")[1]!.trim().split("\n");
  assert.ok(body.length <= 20);
});

/** What the compiler says of a topology file inside this repository. */
async function typeMistakes(t: TestContext, text: string): Promise<string> {
  const inside = join(root, "test", "documentation-check.ts");
  t.after(() => rmSync(inside, { force: true }));
  writeFileSync(inside, text);
  const { message } = await run("node_modules/.bin/tsc", ["--noEmit", "--pretty", "false"], {
    cwd: root,
    within: 120_000,
  }).then(
    () => ({ message: "" }),
    (error: Error) => error,
  );
  return message
    .split("\n")
    .filter((line) => line.includes("documentation-check"))
    .join("\n");
}

test("the README's topology has the types it claims", async (t) => {
  const [snippet] = blocks("ts");
  assert.equal(await typeMistakes(t, snippet!), "");
  assert.match(await typeMistakes(t, snippet!.replace("o.customer)", "o.custmer)")), /custmer/);
});

test("the README's test of an operator passes, and can fail", async (t) => {
  const snippet = blocks("ts")[1]!;
  const inside = join(root, "test", "documentation-example.ts");
  t.after(() => rmSync(inside, { force: true }));
  const tried = (text: string) => {
    writeFileSync(inside, text);
    // Inside a test Node would take the file for a part of this one.
    const env = { ...process.env, NODE_TEST_CONTEXT: "" };
    return spawnSync(process.execPath, ["--conditions=millrace:source", inside], { env, cwd: root }).status;
  };
  assert.equal(tried(snippet), 0);
  assert.notEqual(tried(snippet.replace(">= 10", ">= 5")), 0);
});

/** What "Going to production" shows inline. */
const production = readme.split("\n## Going to production\n")[1]!.split("\n## ")[0]!;
const shownInline = [...production.matchAll(/`([^`]+)`/g)].map((match) => match[1]!);

test("what production is told inline is what is tried here", () => {
  assert.deepEqual(shownInline, [
    "millrace check --connect orders.ts",
    "millrace run --create orders.ts",
    "node node_modules/millrace/bin/millrace.js run orders.ts --http 127.0.0.1:8080",
    "--drain",
    "/readyz",
    "/livez",
    "/metrics",
    "/status",
    "stallTimeout",
    'onStall: "report"',
    "--workers 4",
    "--http",
    'password: secret(env("KAFKA_PASSWORD"))',
  ]);
});

/** A project with the package installed and the README's topology, on a broker inside the process. */
function productionProject(t: TestContext): string {
  const folder = freshFolder(t);
  const modules = join(folder, "node_modules");
  mkdirSync(join(modules, ".bin"), { recursive: true });
  symlinkSync(root, join(modules, "millrace"));
  symlinkSync("../millrace/bin/millrace.js", join(modules, ".bin/millrace"));
  const text = blocks("ts")[0]!.replace("kafka({ ", 'kafka({ driver: "embedded", ');
  assert.match(text, /driver: "embedded"/);
  writeFileSync(join(folder, "orders.ts"), text);
  return folder;
}

/** Starts an inline command, as it stands, where `millrace` and the right `node` are on the path. */
function startInline(t: TestContext, line: string, cwd: string) {
  const PATH = [join(cwd, "node_modules/.bin"), join(root, "node_modules/.bin"), process.env.PATH].join(":");
  const child = spawn("bash", ["-c", `exec ${line}`], {
    cwd,
    env: { ...process.env, PATH },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = Promise.all([text(child.stdout), once(child, "close")]).then(([stdout, [code]]) => ({
    stdout,
    code: code as number | null,
  }));
  const said = { text: "" };
  child.stderr.setEncoding("utf8").on("data", (more: string) => {
    said.text += more;
  });
  t.after(() => child.kill("SIGKILL"));
  const running = async () => {
    await until("it runs", () => said.text.includes("topology running") || child.exitCode !== null);
    assert.equal(child.exitCode, null, said.text);
  };
  return { said, ended, running, stop: () => child.kill("SIGTERM") };
}

const [checkLine, createLine, runLine] = shownInline as [string, string, string];

test(`${checkLine} works`, async (t) => {
  const { ended, said } = startInline(t, checkLine, productionProject(t));
  const { code, stdout } = await ended;
  assert.equal(code, 0, said.text);
  assert.match(stdout, /^ok {2}orders /);
});

test(`${createLine} works`, async (t) => {
  const { ended, said, running, stop } = startInline(t, createLine, productionProject(t));
  await running();
  stop();
  assert.equal((await ended).code, 0, said.text);
});

test(`${runLine} works, SIGTERM reaches it, and it can be watched`, async (t) => {
  // The port of the README may be taken here.
  const address = `127.0.0.1:${await freePort()}`;
  const line = runLine.replace("127.0.0.1:8080", address);
  assert.ok(line.endsWith(address));
  const { ended, said, running, stop } = startInline(t, line, productionProject(t));
  await running();
  for (const path of shownInline.filter((inline) => inline.startsWith("/"))) {
    const response = await fetch(`http://${address}${path}`);
    assert.equal(response.status, 200, path);
    await response.text();
  }
  stop();
  assert.equal((await ended).code, 0, said.text);
});

test("--drain is there, and lasts as long as the README says", async (t) => {
  const [, default_] = /`--drain` \((\d+) s\)/.exec(production)!;
  const { stdout } = await runMillrace(t, ["run", "--help"]);
  assert.match(stdout, new RegExp(`--drain <duration>[^-]*\\(default: ${default_}s\\)`));
});

test("the exit codes that the README lists are all there are", () => {
  const listed = /^Exit codes: (.+)$/m.exec(production)![1]!;
  assert.deepEqual(
    [...listed.matchAll(/\d+/g)].map(([code]) => Number(code)),
    Object.values(ExitCode),
  );
});

test("the README's secret has the right type, is required, and is not printed", async (t) => {
  const snippet = shownInline.find((inline) => inline.includes("secret("))!;
  const text = `import { env, kafka, secret, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1", sasl: { mechanism: "plain", username: "me", ${snippet} } });
export default topology("locked", (t) => {
  t.from(cluster.source({ topics: ["in"], group: "locked" })).to(cluster.sink({ topic: "out" }));
});
`;
  assert.equal(await typeMistakes(t, text), "");
  const file = join(freshFolder(t), "locked.ts");
  writeFileSync(file, text);
  const missing = await runMillrace(t, ["check", file], { KAFKA_PASSWORD: undefined });
  assert.equal(missing.code, 78);
  assert.match(`${missing.stdout}${missing.stderr}`, /KAFKA_PASSWORD/);
  const given = await runMillrace(t, ["check", file], { KAFKA_PASSWORD: "canary-81" });
  assert.equal(given.code, 0, `${given.stdout}${given.stderr}`);
  assert.doesNotMatch(`${given.stdout}${given.stderr}`, /canary-81/);
});

test("every file that the README links to is there", () => {
  for (const [, target] of readme.matchAll(/\]\(([^)#]+)\)/g)) {
    if (/^https?:/.test(target!)) continue;
    assert.ok(
      readFileSync(join(root, target!.endsWith("/") ? `${target}README.md` : target!)).length > 0,
      target,
    );
  }
});

test("the first drawing shows the steps of topologies/quakes.ts in order", async (t) => {
  const { stdout } = await runMillrace(t, ["graph", join(root, "topologies/quakes.ts"), "--format", "text"]);
  const [drawing] = blocks("mermaid");
  const steps = [
    "quakes.polls",
    "decode",
    "validate",
    "key",
    "dedup",
    "batch",
    "compress",
    "quakes.versions",
  ];
  for (const text of [drawing!, stdout]) {
    let at = -1;
    for (const step of steps) {
      const next = text.indexOf(step, at + 1);
      assert.ok(next > at, `${step} comes after the step before it in:\n${text}`);
      at = next;
    }
  }
});

test("every error code that a reader may meet is explained once in errors.ts, and used somewhere", async () => {
  const { errorTable } = await import("../src/errors.ts");
  const sources = globSync("src/**/*.ts", { cwd: root })
    .filter((file) => !file.endsWith(".test.ts") && file !== "src/errors.ts")
    .map((file) => readFileSync(join(root, file), "utf8"))
    .join("\n");
  const unused = Object.keys(errorTable).filter((code) => !sources.includes(`"${code}"`));
  assert.deepEqual(unused, [], "a code that nothing raises is removed");
});
