import { compileFiles } from "../topology/load.ts";
import { ExitCode } from "./exit-code.ts";

/**
 * Loads and compiles topology files. Their code may do anything: if it ends the process, or leaves it nothing
 * to wait for, that is said and the process exits 78 instead of passing for done.
 *
 * @param stopping aborted when nobody waits for them any more.
 */
export async function loadTopologies(
  files: readonly string[],
  stopping?: AbortSignal,
): ReturnType<typeof compileFiles> {
  const explain = (code: number) => {
    if (stopping?.aborted || (code !== ExitCode.done && code !== unsettled)) return;
    process.stderr.write(
      `${files.join(", ")}: the code ended the process, or waits for something that never comes, while it was loaded\n`,
    );
    process.exitCode = ExitCode.configuration;
  };
  process.prependOnceListener("exit", explain);
  try {
    return await compileFiles(files);
  } finally {
    process.removeListener("exit", explain);
  }
}

/** Node's own exit code for a top-level await that nothing can end. */
const unsettled = 13;
