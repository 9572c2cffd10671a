// Captures what the released JavaScript client and server put on the wire, as hex, for the golden
// tests of concord-shared (shared/tests/golden/automerge-repo-2.5.6.json).
//
//   node capture-golden.mjs > ../../shared/tests/golden/automerge-repo-2.5.6.json
//
// Run it by hand when a new version of the packages is to be spoken to; tests only read its output.
// Peer and storage ids are fixed; change hashes and document ids differ from run to run.
//
//   node capture-golden.mjs --check FILE
//
// decodes frames (JSON lines {name, hex}, as concord-shared's test prints them) with the client's own
// decoder, and prints them as JSON.
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { WebSocket, WebSocketServer } from "ws"
import { Repo, cbor, generateAutomergeUrl } from "@automerge/automerge-repo"
import { WebSocketClientAdapter, WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"

const hex = (bytes) => Buffer.from(bytes).toString("hex")

if (process.argv[2] === "--check") {
  for (const line of readFileSync(process.argv[3], "utf8").split("\n").filter(Boolean)) {
    const { name, hex } = JSON.parse(line)
    const message = cbor.decode(new Uint8Array(Buffer.from(hex, "hex")))
    const shown = JSON.stringify(message, (_, value) =>
      value instanceof Uint8Array ? { bytes: Buffer.from(value).toString("hex") } : value)
    console.log(`${name} ${shown}`)
  }
  process.exit(0)
}

/** A storage adapter in memory: with one, a repo has a storage id and says so when it joins. */
class MemoryStorage {
  #chunks = new Map([[JSON.stringify(["storage-adapter-id"]), undefined]])
  constructor(storageId) {
    this.#chunks.set(JSON.stringify(["storage-adapter-id"]), new TextEncoder().encode(storageId))
  }
  load(key) { return Promise.resolve(this.#chunks.get(JSON.stringify(key))) }
  save(key, data) { this.#chunks.set(JSON.stringify(key), data); return Promise.resolve() }
  remove(key) { this.#chunks.delete(JSON.stringify(key)); return Promise.resolve() }
  loadRange() { return Promise.resolve([]) }
  removeRange() { return Promise.resolve() }
}

const frames = []
const seen = new Set()

/** Keeps the first frame of each sort; `sort` tells apart what one type can look like. */
function capture(from, data) {
  const message = cbor.decode(new Uint8Array(data))
  const sort = [message.type]
  if (message.type === "join") sort.push(message.peerMetadata?.storageId ? "with-storage" : "without-storage")
  if (message.type === "remote-subscription-change") {
    sort.push(message.add?.length ? "add" : "", message.remove?.length ? "remove" : "")
  }
  if (message.type === "sync") sort.push(message.data.byteLength > 255 ? "long" : "short")
  const name = `${from}: ${sort.filter(Boolean).join(" ")}`
  if (seen.has(name)) return
  seen.add(name)
  frames.push({ name, hex: hex(data) })
}

const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
server.on("connection", (socket) => {
  socket.on("message", (data) => capture("client", data))
  const send = socket.send.bind(socket)
  socket.send = (data, ...rest) => { capture("server", data); return send(data, ...rest) }
})
await new Promise((resolve) => server.once("listening", resolve))
new Repo({
  network: [new WebSocketServerAdapter(server)],
  storage: new MemoryStorage("11111111-1111-4111-8111-111111111111"),
  peerId: "storage-server-golden",
  sharePolicy: async () => false,
  enableRemoteHeadsGossiping: true,
})
const url = `ws://127.0.0.1:${server.address().port}`

function client(peerId, storageId) {
  return new Repo({
    network: [new WebSocketClientAdapter(url)],
    storage: storageId ? new MemoryStorage(storageId) : undefined,
    peerId,
    enableRemoteHeadsGossiping: true,
  })
}
const alice = client("peer-alice", "22222222-2222-4222-8222-222222222222")
const bob = client("peer-bob")
await alice.networkSubsystem.whenReady()
await bob.networkSubsystem.whenReady()
await sleep(200)

const document = alice.create({ title: "golden" })
await sleep(300)
const copy = await bob.find(document.url)
bob.subscribeToRemotes(["22222222-2222-4222-8222-222222222222"])
await sleep(200)
document.change((value) => { value.body = "long enough for a longer length ".repeat(20) + Math.random() })
await sleep(500)
copy.change((value) => { value.title = "changed" })
await sleep(300)
document.broadcast({ cursor: 7 })
await sleep(300)
// A document that nobody has: request, and doc-unavailable in answer.
await bob.find(generateAutomergeUrl()).catch(() => {})
await sleep(200)
// A version that the server does not speak: error.
const stranger = new WebSocket(url)
await new Promise((resolve) => stranger.once("open", resolve))
stranger.send(cbor.encode({
  type: "join", senderId: "peer-stranger", peerMetadata: {}, supportedProtocolVersions: ["2"],
}))
await sleep(200)

// What 2.5.6 understands or declares but never sent above, by its own encoder.
const byHand = (name, message) => frames.push({ name: `encoder: ${name}`, hex: hex(cbor.encode(message)) })
byHand("leave", { type: "leave", senderId: "peer-alice" })
byHand("remote-subscription-change remove", {
  type: "remote-subscription-change", senderId: "peer-bob", targetId: "storage-server-golden",
  add: undefined, remove: ["22222222-2222-4222-8222-222222222222"],
})
byHand("ephemeral with a large count", {
  type: "ephemeral", senderId: "peer-alice", targetId: "storage-server-golden", count: 2 ** 33,
  sessionId: "session", documentId: document.documentId, data: cbor.encode({ cursor: 7 }),
})

const require = createRequire(import.meta.url)
const version = (name) => {
  const entry = require.resolve(name)
  const root = entry.slice(0, entry.lastIndexOf(name) + name.length)
  return JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version
}
console.log(JSON.stringify({
  captured: {
    node: process.versions.node,
    "@automerge/automerge": version("@automerge/automerge"),
    "@automerge/automerge-repo": version("@automerge/automerge-repo"),
    "@automerge/automerge-repo-network-websocket": version("@automerge/automerge-repo-network-websocket"),
  },
  frames,
}, null, 2))
process.exit(0)
