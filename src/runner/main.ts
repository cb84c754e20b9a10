import { holdStopSignals } from "./early-signals.ts";
import { boundHeapGrowth } from "./heap-growth.ts";

// Before anything else is loaded, which takes a second on a slow machine. Only a run has something to do when it is
// told to stop; other commands just end.
if (process.argv[2] === "run") {
  holdStopSignals();
  boundHeapGrowth();
}
const [{ messageOf }, { cli }, { ExitCode }] = await Promise.all([
  import("../errors.ts"),
  import("./cli.ts"),
  import("./exit-code.ts"),
]);

/**
 * The process. It ends itself: a client library's forgotten timer must not keep it alive, and what was written
 * to a pipe is there by then.
 */
// Whoever reads may go away first (`millrace … | head`): what is left to say is then said to nobody.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
const endEarly = (code: number) => {
  if (code !== ExitCode.done || (process.exitCode ?? 0) !== ExitCode.done) return;
  process.stderr.write(
    "millrace ended before its work was done: something called process.exit, or nothing was left to wait for\n",
  );
  process.exitCode = ExitCode.failed;
};
process.once("exit", endEarly);
const code = await cli(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`${messageOf(error)}\n${error instanceof Error ? messageOf(error.stack) : ""}\n`);
  return ExitCode.failed;
});
await Promise.all(
  [process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))),
);
process.removeListener("exit", endEarly);
process.exit(code);
