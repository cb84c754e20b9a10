import { type Secret, secret } from "../../component/secret.ts";

/** A login as Java's clients are given it: "org.apache.kafka…PlainLoginModule required username="etl" password="…";". */
export interface JaasLogin {
  /** Name of the class, without its package. */
  readonly module: string;
  readonly options: ReadonlyMap<string, Secret>;
}

const word = String.raw`[A-Za-z_][\w.]*`;
const value = String.raw`"(?:[^"\\]|\\.)*"|[^\s;"=]+`;
const entry = new RegExp(String.raw`\s+(${word})\s*=\s*(${value})`, "gy");
const head =
  /^\s*((?:[A-Za-z_$][\w$]*\.)*([A-Za-z_$][\w$]*))\s+(?:required|requisite|sufficient|optional)(?=[\s;])/;

/** Reads one login, or says what is wrong with it. Neither shows a value of an option: one is the password. */
export function parseJaas(text: string): JaasLogin | string {
  const named = head.exec(text);
  if (named === null) return 'it does not begin with a login module and "required"';
  const options = new Map<string, Secret>();
  let at = named[0].length;
  for (;;) {
    entry.lastIndex = at;
    const match = entry.exec(text);
    if (match === null) break;
    const [whole, name, given] = match as unknown as [string, string, string];
    if (options.has(name)) return `it has the option "${name}" twice`;
    options.set(name, secret(given.startsWith('"') ? given.slice(1, -1).replaceAll(/\\(.)/g, "$1") : given));
    at += whole.length;
  }
  const rest = text.slice(at).trim();
  if (rest === ";") return { module: named[2]!, options };
  if (rest === "") return 'it does not end with ";"';
  return options.size === 0
    ? 'what follows the login module is no option of the form name="value"'
    : `what follows the option "${[...options.keys()].at(-1)}" is neither an option nor ";"`;
}
