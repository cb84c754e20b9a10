import { readFileSync } from "node:fs";

/** PEM text, or the path of a file that holds it: read at each connect, so that renewed certificates are used. */
export function pem(given: string): string | Buffer {
  return given.includes("-----BEGIN") ? given : readFileSync(given);
}
