import { readFileSync } from "node:fs";

/** Of the package; its package.json lies two folders up from here, in the sources as in the build. */
export const version = String(
  (
    JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
      version?: unknown;
    }
  ).version,
);
