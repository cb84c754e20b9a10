import { type ResolveHookContext, registerHooks } from "node:module";

/** Where this very copy of the package begins: its sources where they run, its build where that runs. */
export const ownIndex = new URL(
  import.meta.url.endsWith(".ts") ? "../index.ts" : "../index.js",
  import.meta.url,
).href;
const own = new URL("../", import.meta.url).href;

/** Files of topologies, which are ES modules whatever the package.json near them says. */
const topologyFiles = new Set<string>();
/** Which file imports which, both outside of packages. */
const imports = new Map<string, Set<string>>();
let registered = false;

/**
 * Makes `import … from "millrace"` mean this running copy of the package, from wherever the importing file
 * lies and whatever is installed beside it: with two copies a topology would be of another class than the
 * runner's, and an environment variable would be missed by a collector that nobody asks. An author's `rxjs` is
 * this package's as well, since Observables pass between the two in `stage`, and a topology that lies alone has
 * none. Everything else resolves as before.
 *
 * Synchronous, and done once for the process.
 */
export function importSelfByName(): void {
  if (registered) return;
  registered = true;
  registerHooks({
    resolve(specifier, context, nextResolve) {
      if (specifier === "millrace") return { url: ownIndex, shortCircuit: true };
      const { parentURL } = context;
      const shares = /^rxjs(\/|$)/.test(specifier) && parentURL !== undefined && isAuthors(parentURL);
      const resolved = nextResolve(specifier, shares ? { ...context, parentURL: import.meta.url } : context);
      note(context.parentURL, resolved.url);
      if (!topologyFiles.has(resolved.url) && !isImportedTypeScript(resolved.url, context)) return resolved;
      const isTypeScript = /\.m?ts$/.test(resolved.url);
      return { ...resolved, format: isTypeScript ? "module-typescript" : "module" };
    },
  });
}

/**
 * A `.ts` file that an author's module imports, such as the schema beside a topology. `npm init` writes
 * `"type": "commonjs"`, by which Node would find no export in it.
 */
function isImportedTypeScript(url: string, { parentURL, conditions }: ResolveHookContext): boolean {
  const imported = parentURL !== undefined && isAuthors(parentURL) && conditions.includes("import");
  return imported && url.endsWith(".ts") && isAuthors(url);
}

/** The module will be loaded as a topology file. */
export function markTopologyFile(url: string): void {
  topologyFiles.add(url);
}

/** The module itself and all that it imports, directly or not, outside of packages and of this one. */
export function modulesOf(url: string): readonly string[] {
  const found = new Set([url]);
  for (const module of found) for (const imported of imports.get(module) ?? []) found.add(imported);
  return [...found];
}

function note(parent: string | undefined, url: string): void {
  if (parent === undefined || !isAuthors(parent) || !isAuthors(url)) return;
  const imported = imports.get(parent) ?? new Set<string>();
  imports.set(parent, imported.add(url));
}

function isAuthors(url: string): boolean {
  const isOwn = url.startsWith(own) && !url.includes(".test.ts");
  return url.startsWith("file:") && !isOwn && !url.includes("/node_modules/");
}
