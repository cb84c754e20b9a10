// Where the time of a CPU profile went: by function, self time. Profiles come from BENCH_PROFILE=<folder> npm run bench.
//
// node bench/profile.ts <file.cpuprofile> [lines]
import { readFileSync } from "node:fs";

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const [file, lines = "40"] = process.argv.slice(2);
if (file === undefined) {
  console.error("usage: node bench/profile.ts <file.cpuprofile> [lines]");
  process.exit(2);
}
const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, "utf8")) as Profile;
const names = new Map(
  nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => [
    id,
    `${functionName || "(anonymous)"}  ${url.replace(/^.*\/(?=(src|node_modules|bench)\/)/, "")}:${lineNumber + 1}`,
  ]),
);
const self = new Map<string, number>();
let busy = 0;
for (const [i, id] of samples.entries()) {
  const name = names.get(id)!;
  const micros = timeDeltas[i]!;
  self.set(name, (self.get(name) ?? 0) + micros);
  if (!name.startsWith("(idle)")) busy += micros;
}
console.log(`${(busy / 1e6).toFixed(2)} s busy`);
for (const [name, micros] of [...self].sort(([, a], [, b]) => b - a).slice(0, Number(lines))) {
  if (name.startsWith("(idle)")) continue;
  console.log(`${((100 * micros) / busy).toFixed(1).padStart(5)} %  ${name}`);
}
