// Promise: every example in the documentation of this package compiles, and runs.
//
// They are cut out of the comments, so none can be forgotten; each becomes a function of its own, is checked by the
// compiler against the real types, and is run against the real module, on a client without a server.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import "fake-indexeddb/auto";

import { connect } from "../src/node.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const made = join(root, "build/examples");

/** What examples may use without saying where it is from. */
const HEAD = `
import type { Client, ConnectOptions, DocumentHandle, Frozen } from "../src/node.js";
import * as api from "../src/node.js";
const clients: Client[] = [];
const connect = async (options?: ConnectOptions): Promise<Client> => {
  const client = await api.connect(options);
  clients.push(client);
  return client;
};
export const end = (): Promise<unknown> => Promise.all(clients.map((client) => client.close()));
const { splice, updateText, insertAt, deleteAt, Counter, Float, ImmutableString, ValueError } = api;
const input = { value: "typed" };
void [connect, splice, updateText, insertAt, deleteAt, Counter, Float, ImmutableString, ValueError, input];
export type { Frozen };
`;

interface Example {
  readonly where: string;
  readonly code: string;
}

function examples(): Example[] {
  const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
  return files
    // Those of the bindings need their libraries and a page: they are tested in a browser.
    .filter((file) => file.endsWith(".ts") && !file.startsWith("bindings"))
    .flatMap((file) => {
      const text = readFileSync(join(root, "src", file), "utf8");
      return [...text.matchAll(/\/\*\*[^]*?\*\//g)].flatMap((comment) => {
        const [, ...blocks] = comment[0].split(/^ *\* *@example.*$/m);
        const line = text.slice(0, comment.index).split("\n").length;
        return blocks.map((block) => ({
          where: `${relative(root, join(root, "src", file))}:${line}`,
          code: (block.split(/^ *\* *@/m)[0] ?? "").replace(/\*\/$/, "").replace(/^ *\* ?/gm, ""),
        }));
      });
    });
}

test("every example compiles and runs", async () => {
  const all = examples();
  assert.ok(all.length >= 10, `only ${all.length} examples were found`);
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { recursive: true });
  const modules = all.map(({ where, code }, n) => {
    const body = `${HEAD}\n// ${where}\nexport async function run(client: Client, handle: DocumentHandle<any>): Promise<void> {\nvoid [client, handle];\n{\n${code}\n}\n}\n`;
    const file = join(made, `example-${n}.ts`);
    writeFileSync(file, body);
    return basename(file, ".ts");
  });
  const config = JSON.parse(readFileSync(join(root, "tsconfig.json"), "utf8")) as { compilerOptions: object };
  // Against the declarations that the build made beside the tests: what users get.
  const compilerOptions = { ...config.compilerOptions, rootDir: ".", outDir: undefined, noUnusedLocals: false, types: ["node"] };
  writeFileSync(join(made, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  const compiler = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-p", made], { encoding: "utf8" });
  assert.equal(compiler.status, 0, compiler.stdout);

  const client = await connect({ storage: "indexeddb" });
  const log = console.log;
  console.log = () => {};
  try {
    for (const [n, name] of modules.entries()) {
      const handle = client.create({ title: "Hello, world", tasks: [1, 2, 3].map((n) => ({ title: `task ${n}`, done: false })), notes: "some", count: 1 });
      const module = (await import(pathToFileURL(join(made, `${name}.js`)).href)) as {
        run(client: unknown, handle: unknown): Promise<void>;
        end(): Promise<unknown>;
      };
      await assert.doesNotReject(module.run(client, handle), `the example at ${all[n]?.where}`);
      // One that is left open goes on trying to connect.
      await module.end();
    }
  } finally {
    console.log = log;
    await client.close();
  }
});
