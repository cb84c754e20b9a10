/** What a person at a terminal sees: a progress line that is rewritten in place, then the final table. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { findProgram } from "../../test/brokers/program.ts";
import { run } from "../../test/brokers/run.ts";
import { freshFolder, runMillrace } from "../../test/millrace.ts";

const bin = fileURLToPath(new URL("../../bin/millrace.js", import.meta.url));

/** Goes back to the start of the line and erases it. */
const clearLine = "\r\x1b[2K";

const topology = `import { decode, kafka, topology } from "millrace";
const cluster = kafka({ brokers: "127.0.0.1:1" });
export default topology("seen", (t) => {
  t.from(cluster.source({ topics: ["seen.in"], group: "seen" }))
    .pipe(decode("json"))
    .to(cluster.sink({ topic: "seen.out" }));
  t.deadLetters(cluster.sink({ topic: "seen.dead" }));
});
`;

/** `script` of util-linux, which runs a command in a pseudo-terminal; others take other options. */
async function pseudoTerminal(): Promise<string | false> {
  const script = findProgram("script");
  if (script === undefined) return "needs script, which is not installed";
  const works = await run(script, ["-qec", "true", "/dev/null"]).then(
    () => true,
    () => false,
  );
  return works ? false : "needs the script of util-linux";
}

const skip = await pseudoTerminal();

test("in a terminal: a progress line in place, then the table, which ends with the equation", {
  skip,
}, async (t) => {
  const folder = freshFolder(t);
  const [file, feed] = [join(folder, "seen.ts"), join(folder, "in.ndjson")];
  writeFileSync(file, topology);
  writeFileSync(feed, '{"n":1}\n{"n":2}\nnot json\n');
  const args = ["run", file, "--embedded", "--feed", `seen.in=${feed}`, "--until-idle"];
  const command = [process.execPath, bin, ...args].map((arg) => `'${arg}'`).join(" ");
  const { stdout } = await run("script", ["-qec", `stty cols 120; ${command}`, "/dev/null"]);
  const screen = stdout.replaceAll("\r\n", "\n");
  const lines = screen.split("\n");
  // Log lines scroll above the progress line, so its last state is what stays.
  const last = lines.findLastIndex((line) => line.includes("msg/s"));
  assert.ok(last >= 0, screen);
  const states = lines.slice(0, last + 1).flatMap((line) => line.split(clearLine));
  assert.ok(states.filter((state) => state.startsWith("seen ")).length > 1, "it is rewritten in place");
  assert.match(
    states.at(-1)!,
    /^seen done {2}[\d,]+ msg\/s {2}accepted 3 {2}delivered 2 {2}in flight 0 {2}deadLettered 1$/,
  );
  const table = lines.slice(last + 1).join("\n");
  assert.match(table, /^seen: done/m);
  assert.match(table, /\naccepted 3 = delivered 2 \+ deadLettered 1\n$/);
  const piped = await runMillrace(t, args);
  assert.ok(!`${piped.stdout}${piped.stderr}`.includes(clearLine), "a pipe has no progress line");
  // How many batches it took may differ.
  const shape = (text: string) => text.replaceAll(/\d+/g, "0");
  assert.equal(shape(table), shape(piped.stdout), "the table is that of a pipe");
});
