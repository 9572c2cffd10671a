/** The worker that reads a long document; see `protocol.ts`. A script of its own, made for one document. */
import { applyChunks } from "../client/chunks.js";
import { type Instance, instantiate } from "../load.js";
import type { WasmReplica } from "../wasm.js";
import type { Content, Told, Work } from "./protocol.js";

/** Bytes of the memory that the page copies at a time: some milliseconds. */
const PART_BYTES = 8 * 1024 * 1024;
/** Bytes of changes between two reports. Each costs a pass over the document. */
const REPORT_BYTES = 512 * 1024;

/** The part of a worker's global scope that is used here. */
interface Scope {
  onmessage: ((event: MessageEvent<unknown>) => void) | null;
  postMessage(message: Told, transfer?: Transferable[]): void;
}

const scope = globalThis as unknown as Scope;

scope.onmessage = (event) => {
  fill(event.data as Work).catch((error: unknown) => {
    const { message } = error instanceof Error ? error : new Error(String(error));
    const code: unknown = (error as { code?: unknown } | null)?.code;
    scope.postMessage({ t: "failed", code: typeof code === "string" ? code : "internal", message });
  });
};
scope.postMessage({ t: "here" });

async function fill({ module, document, content }: Work): Promise<void> {
  const instance = await instantiate(module);
  const replica = new instance.wasm.Replica(document);
  const damaged = read(replica, content);
  replica.park();
  const bytes = instance.memory.buffer.byteLength;
  handOver(instance, bytes);
  scope.postMessage({ t: "filled", bytes, values: instance.values.length, damaged });
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

/** From now on whatever the page says is `next`. */
function handOver({ memory }: Instance, bytes: number): void {
  let at = 0;
  scope.onmessage = () => {
    const part = new Uint8Array(memory.buffer.slice(at, Math.min(at + PART_BYTES, bytes)));
    at += part.length;
    scope.postMessage({ t: "part", part }, [part.buffer]);
  };
}
