// `node build.mjs [--dev]`: from build/wasm, which `cargo xtask client` makes, and src to dist, which is published.
// --dev leaves out what makes it small.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";

import { build } from "esbuild";

/** What a browser has to download at most before the client runs, compressed by brotli. */
const MAX_WASM_BROTLI_BYTES = 400_000;
const MAX_JAVASCRIPT_BROTLI_BYTES = 30_000;

/** The bindings, each an entry point of its own, and what each may have at most. */
const BINDINGS = ["store", "react", "codemirror", "angularjs"];
const MAX_BINDING_BROTLI_BYTES = 4_000;

/** Made with these and no others: with all that the optimiser knows, browsers refuse the module. */
const WASM_FEATURES = [
  "bulk-memory",
  "nontrapping-float-to-int",
  "sign-ext",
  "mutable-globals",
  "reference-types",
  "multivalue",
];

const isDev = process.argv.includes("--dev");
const here = fileURLToPath(new URL(".", import.meta.url));
const inside = (...parts) => join(here, ...parts);
const dist = (name) => inside("dist", name);
const bound = inside("build/wasm/concord_bg.wasm");
if (!existsSync(bound)) {
  fail("there is no build/wasm/concord_bg.wasm: run `cargo xtask client`");
}
rmSync(inside("dist"), { recursive: true, force: true });
mkdirSync(inside("dist"), { recursive: true });

makeWasm();
await bundle();
run("typescript/bin/tsc", "-p", "tsconfig.types.json");
checkSizes();

function makeWasm() {
  const module = new WebAssembly.Module(readFileSync(bound));
  const strangers = WebAssembly.Module.imports(module).filter(({ module }) => module !== "./concord_bg.js");
  if (strangers.length > 0) {
    fail(`the wasm module imports what no browser has: ${strangers.map((i) => `${i.module}.${i.name}`).join(", ")}`);
  }
  const made = dist("concord_bg.wasm");
  if (isDev) {
    copyFileSync(bound, made);
  } else {
    const features = ["--mvp-features", ...WASM_FEATURES.map((name) => `--enable-${name}`)];
    // What it was made by, and for what, no browser asks.
    const stripped = ["--strip-producers", "--strip-target-features"];
    run("binaryen/bin/wasm-opt", bound, "-Oz", "-Oz", "--gufa", "-Oz", ...stripped, ...features, "-o", made);
    new WebAssembly.Module(readFileSync(made));
  }
  // The tests run what tsc makes from src, and the module is loaded from beside that.
  mkdirSync(inside("build/src"), { recursive: true });
  copyFileSync(made, inside("build/src/concord_bg.wasm"));
}

async function bundle() {
  const common = {
    absWorkingDir: here,
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: !isDev,
    sourcemap: isDev,
    legalComments: "none",
    logLevel: "warning",
  };
  const bindings = BINDINGS.map((name) => ({ in: `src/bindings/${name}.ts`, out: name }));
  const { peerDependencies } = JSON.parse(readFileSync(inside("package.json"), "utf8"));
  await Promise.all([
    build({
      ...common,
      platform: "browser",
      entryPoints: [
        { in: "src/index.ts", out: "index" },
        { in: "src/long/worker.ts", out: "worker" },
      ],
      outdir: "dist",
    }),
    build({ ...common, platform: "node", entryPoints: [{ in: "src/node.ts", out: "node" }], outdir: "dist" }),
    build({
      ...common,
      platform: "browser",
      entryPoints: bindings,
      outdir: "dist",
      // Their users have them.
      external: Object.keys(peerDependencies).flatMap((name) => [name, `${name}/*`]),
    }),
  ]);
}

/** Says what a browser has to download; too much is a failure. */
function checkSizes() {
  const wasm = readFileSync(dist("concord_bg.wasm"));
  const javascript = readFileSync(dist("index.js"));
  const brotli = { wasm: brotliCompressSync(wasm).length, javascript: brotliCompressSync(javascript).length };
  const bytes = (count) => `${count.toLocaleString("en")} B`;
  const gzip = gzipSync(wasm, { level: 9 }).length;
  console.log(`wasm: ${bytes(wasm.length)}, gzip ${bytes(gzip)}, brotli ${bytes(brotli.wasm)}`);
  console.log(`index.js: ${bytes(javascript.length)}, brotli ${bytes(brotli.javascript)}`);
  const worker = readFileSync(dist("worker.js"));
  console.log(`worker.js, for long documents: ${bytes(worker.length)}, brotli ${bytes(brotliCompressSync(worker).length)}`);
  const bindings = BINDINGS.map((name) => {
    const made = readFileSync(dist(`${name}.js`));
    const compressed = brotliCompressSync(made).length;
    console.log(`${name}.js: ${bytes(made.length)}, brotli ${bytes(compressed)}`);
    return { name, compressed };
  });
  if (isDev) {
    return;
  }
  for (const { name, compressed } of bindings) {
    if (compressed > MAX_BINDING_BROTLI_BYTES) {
      fail(`${name}.js may have ${bytes(MAX_BINDING_BROTLI_BYTES)} by brotli`);
    }
  }
  if (brotli.wasm > MAX_WASM_BROTLI_BYTES) {
    fail(`the wasm module may have ${bytes(MAX_WASM_BROTLI_BYTES)} by brotli`);
  }
  if (brotli.javascript > MAX_JAVASCRIPT_BROTLI_BYTES) {
    fail(`index.js may have ${bytes(MAX_JAVASCRIPT_BROTLI_BYTES)} by brotli`);
  }
}

/** Runs a program of npm's, which says itself what is wrong. */
function run(program, ...args) {
  const options = { cwd: here, stdio: "inherit" };
  const { status } = spawnSync(process.execPath, [inside("node_modules", program), ...args], options);
  if (status !== 0) {
    fail(`${program} failed`);
  }
}

function fail(reason) {
  console.error(`build.mjs: ${reason}`);
  process.exit(1);
}
