import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";

const index = new URL("../../../index.ts", import.meta.url).href;

/** Client libraries of Kafka that are loaded by a program that does this with `kafka`. */
async function libraries(does: string): Promise<string[]> {
  const program = `
    import { registerHooks } from "node:module";
    const seen = new Set();
    registerHooks({ load(url, context, next) {
      const [name] = /kafkajs(?=\\/)|@platformatic\\/kafka(?=\\/)/.exec(url.split("node_modules/")[1] ?? "") ?? [];
      if (name) seen.add(name);
      return next(url, context);
    } });
    const { kafka } = await import(${JSON.stringify(index)});
    const { testContext } = await import(${JSON.stringify(new URL("../../../testing/context.ts", import.meta.url).href)});
    const { systemClock } = await import(${JSON.stringify(new URL("../../../component/system.ts", import.meta.url).href)});
    const context = { ...testContext(), clock: systemClock };
    ${does}
    console.log(JSON.stringify([...seen]));
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", program]);
  return JSON.parse(stdout) as string[];
}

test("no client library is loaded before it is needed, and then only the one that is", async () => {
  const declared = 'kafka({ brokers: "127.0.0.1:1" }).sink({ topic: "t" });';
  assert.deepEqual(await libraries(declared), []);
  const using = (driver: string) =>
    libraries(
      `await kafka({ brokers: "127.0.0.1:1", ${driver} connectTimeout: 100 }).verify(context, []).catch(() => {});`,
    );
  assert.deepEqual(await using(""), ["@platformatic/kafka"]);
  assert.deepEqual(await using('driver: "kafkajs",'), ["kafkajs"]);
});
