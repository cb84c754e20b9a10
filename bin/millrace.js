#!/usr/bin/env node
// Written for any Node that can parse an ES module, so that one which is too old is told so in words.
// It takes the sources where they are (a checkout) and the build where they are not (an installed package).
const [major, minor] = process.versions.node.split(".").map(Number);

if ((major === 22 && minor >= 22) || (major === 24 && minor >= 6) || major > 24) {
  import("node:fs")
    .then(({ existsSync }) => {
      const source = new URL("../src/runner/main.ts", import.meta.url);
      return import(
        existsSync(source) ? source.href : new URL("../dist/runner/main.js", import.meta.url).href
      );
    })
    .catch((error) => {
      console.error(error);
      process.exit(1);
    });
} else {
  console.error(
    `millrace needs Node 22 from 22.22 on, or 24.6 and newer; this is ${process.version} (${process.execPath}).`,
  );
  console.error(
    "Start it with one of these, or add one to your project with: npm install --save-dev node@24",
  );
  process.exit(78);
}
