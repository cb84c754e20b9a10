import { messageOf } from "../errors.ts";
import { cli } from "./cli.ts";
import { ExitCode } from "./exit-code.ts";

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
