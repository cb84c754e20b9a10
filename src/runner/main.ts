import { messageOf } from "../errors.ts";
import { cli } from "./cli.ts";
import { ExitCode } from "./exit-code.ts";

/**
 * The process. It ends itself: a client library's forgotten timer must not keep it alive, and what was written
 * to a pipe is there by then.
 */
const code = await cli(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`${messageOf(error)}\n${error instanceof Error ? messageOf(error.stack) : ""}\n`);
  return ExitCode.failed;
});
await Promise.all(
  [process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))),
);
process.exit(code);
