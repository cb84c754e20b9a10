import { relative, resolve } from "node:path";

/**
 * A reporter of node --test for .ci/test.mjs: one JSON line for each thing that must not pass unseen, and one
 * for the number of tests at the end.
 */
export default async function* tally(events) {
  for await (const { type, data } of events) {
    if (type === "test:pass" || type === "test:fail") {
      const file = data.file === undefined ? "" : relative(".", data.file);
      // Node counts a file in which nothing was tested as one passing test that bears the file's name.
      const isFile = data.nesting === 0 && data.file !== undefined && resolve(data.name) === data.file;
      if (isFile && type === "test:pass") yield line({ kind: "empty", file });
      if (data.skip !== undefined) yield line({ kind: "skipped", file, name: data.name, reason: data.skip });
    }
    if (type === "test:summary" && data.file === undefined) yield line({ kind: "total", ...data.counts });
  }
}

function line(value) {
  return `${JSON.stringify(value)}\n`;
}
