/** The worker that reads a long document; see `protocol.ts`. A script of its own, made for one document. */
import { applyChunks, asError, concat, SLICE_BYTES } from "../client/chunks.js";
import { instantiate } from "../load.js";
import type { Chunk, WasmPatch, WasmReplica } from "../wasm.js";
import type { Content, Told, Work } from "./protocol.js";

/** Bytes of the memory that the page copies at a time: some milliseconds. */
const PART_BYTES = 8 * 1024 * 1024;
/** Patches that the page takes at a time: likewise. */
const PATCHES = 4_000;
/** Bytes of changes between two reports. Each costs a pass over the document. */
const REPORT_BYTES = 512 * 1024;

/** The part of a worker's global scope that is used here. */
interface Scope {
  onmessage: ((event: MessageEvent<unknown>) => void) | null;
  postMessage(message: Told, transfer?: Transferable[]): void;
}

const scope = globalThis as unknown as Scope;

scope.onmessage = (event) => {
  work(event.data as Work).catch((error: unknown) => {
    const { message } = asError(error);
    const code: unknown = (error as { code?: unknown } | null)?.code;
    scope.postMessage({ t: "failed", code: typeof code === "string" ? code : "internal", message });
  });
};
scope.postMessage({ t: "here" });

async function work({ module, document, content, have }: Work): Promise<void> {
  const instance = await instantiate(module);
  const replica = new instance.wasm.Replica(document);
  const damaged = read(replica, content);
  if (have !== undefined) {
    scope.postMessage({ t: "changes", parts: inParts(replica.changesSince(have)), heads: replica.heads() });
    return;
  }
  const patches = replica.patches();
  replica.park();
  const { memory, values } = instance;
  const bytes = memory.buffer.byteLength;
  scope.postMessage({ t: "filled", bytes, values: values.length, damaged });
  const rest = handOver(memory.buffer, patches);
  scope.onmessage = () => {
    const told = rest.next().value;
    scope.postMessage(told, told.t === "part" ? [told.part.buffer] : []);
  };
}

function read(replica: WasmReplica, content: Content): number {
  if (content.from === "chunks") {
    return applyChunks(replica, content.chunks);
  }
  replica.connect();
  replica.receive(content.message);
  for (let done = 0; replica.hasPending(); done += REPORT_BYTES) {
    scope.postMessage({ t: "progress", done: Math.min(done, content.message.length) });
    replica.applyPending(REPORT_BYTES);
  }
  return 0;
}

/** One after the other, as many in a part as are applied at a time; at least one. */
function inParts(changes: readonly Chunk[]): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let part: Uint8Array[] = [];
  let bytes = 0;
  for (const change of changes) {
    part.push(change.bytes);
    bytes += change.bytes.length;
    if (bytes >= SLICE_BYTES) {
      parts.push(concat(part));
      [part, bytes] = [[], 0];
    }
  }
  return part.length === 0 ? parts : [...parts, concat(part)];
}

function* handOver(memory: ArrayBuffer, patches: readonly WasmPatch[]): Generator<Told, Told> {
  for (let at = 0; at < memory.byteLength; at += PART_BYTES) {
    yield { t: "part", part: new Uint8Array(memory.slice(at, at + PART_BYTES)) };
  }
  for (let at = 0; at < patches.length; at += PATCHES) {
    yield { t: "patches", patches: patches.slice(at, at + PATCHES) };
  }
  return { t: "done" };
}
