// `node build.mjs [--dev]`: the board app, from src to dist, which any web server can serve, and the program that
// puts the sample board on a server, to build/seed.mjs. Wants ../js/dist, which `cargo xtask client` makes; the
// tools and libraries are that package's.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const isDev = process.argv.includes("--dev");
const here = dirname(fileURLToPath(import.meta.url));
const client = join(here, "../js");
const inside = (...parts) => join(here, ...parts);
if (!existsSync(join(client, "dist/index.js"))) {
  console.error("build.mjs: there is no ../js/dist: run `cargo xtask client`");
  process.exit(1);
}
const { build } = createRequire(join(client, "package.json"))("esbuild");

const checked = spawnSync(process.execPath, [join(client, "node_modules/typescript/bin/tsc"), "-p", here], { stdio: "inherit" });
if (checked.status !== 0) {
  process.exit(1);
}

for (const folder of ["dist", "build"]) {
  rmSync(inside(folder), { recursive: true, force: true });
  mkdirSync(inside(folder));
}
const common = {
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: "es2022",
  nodePaths: [join(client, "node_modules")],
  jsx: "automatic",
  legalComments: "none",
  logLevel: "warning",
  define: { "process.env.NODE_ENV": isDev ? '"development"' : '"production"' },
};
await Promise.all([
  build({
    ...common,
    platform: "browser",
    entryPoints: [
      { in: "src/main.tsx", out: "app" },
      { in: "src/app.css", out: "app" },
    ],
    outdir: "dist",
    minify: !isDev,
    sourcemap: isDev,
    alias: {
      "@concord/client/codemirror": join(client, "dist/codemirror.js"),
      "@concord/client/react": join(client, "dist/react.js"),
      "@concord/client": join(client, "dist/index.js"),
    },
  }),
  build({
    ...common,
    platform: "node",
    entryPoints: ["src/seed.ts"],
    outdir: "build",
    outExtension: { ".js": ".mjs" },
    alias: { "@concord/client": join(client, "dist/node.js") },
  }),
]);
for (const name of ["index.html", "icon.svg"]) {
  copyFileSync(inside(name), inside("dist", name));
}
copyFileSync(join(client, "dist/worker.js"), inside("dist/worker.js"));
// Both look for the module beside themselves.
for (const folder of ["dist", "build"]) {
  copyFileSync(join(client, "dist/concord_bg.wasm"), inside(folder, "concord_bg.wasm"));
}
