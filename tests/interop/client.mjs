// One stock automerge-repo client, unmodified from npm, driven over stdin and stdout.
//
// Each line on stdin is a request {id, command, ...}; each line on stdout answers one:
// {id, result} or {id, error}. Requests run one after the other, so a test reads as the
// sequence of what this user did. The process ends with its stdin, so that a test that
// dies leaves no client behind. Everything said on stderr is log for a failed test.
//
// Document handles are named by their automerge: URL. Hashes are hexadecimal.

import * as A from "@automerge/automerge"
import { Repo, decodeHeads } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { createInterface } from "node:readline"
import { inspect } from "node:util"
import { applyOp, valueAt } from "./ops.mjs"

const state = {
  repo: undefined,
  adapter: undefined,
  /** The last peer and every peer that answered a handshake: [{peerId, storageId, isEphemeral}]. */
  servers: [],
  /** How often the connection to a server ended, as the repo was told. */
  disconnections: 0,
  /** url -> {handle, ephemeral: [{senderId, message}]} */
  documents: new Map(),
}

/** How `dump` shows a document: in full, and independent of the order in which its keys came. */
const EVERYTHING = {
  depth: Infinity,
  maxArrayLength: Infinity,
  maxStringLength: Infinity,
  breakLength: Infinity,
  sorted: true,
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

/** Asks `probe` every few milliseconds until it returns something other than undefined. */
async function until(what, timeoutMs, probe) {
  const deadline = Date.now() + timeoutMs
  for (;;) {
    const found = probe()
    if (found !== undefined) return found
    if (Date.now() > deadline) throw new Error(`timeout: ${what} within ${timeoutMs} ms`)
    await sleep(5)
  }
}

function track(handle) {
  let entry = state.documents.get(handle.url)
  if (!entry) {
    entry = { handle, ephemeral: [] }
    state.documents.set(handle.url, entry)
    handle.on("ephemeral-message", ({ senderId, message }) =>
      entry.ephemeral.push({ senderId, message }),
    )
  }
  return entry
}

function entryOf(url) {
  const entry = state.documents.get(url)
  if (!entry) throw new Error(`this client does not have ${url} open`)
  return entry
}

const documentOf = url => entryOf(url).handle.doc()
const headsOf = url => A.getHeads(documentOf(url)).slice().sort()

const sameHeads = (a, b) => a.length === b.length && a.every((hash, index) => hash === b[index])

/** What the storage named says it has of a document, as this client was told: sorted hashes, or undefined. */
function remoteHeadsOf(url, storageId) {
  const info = entryOf(url).handle.getSyncInfo(storageId)
  return info && decodeHeads(info.lastHeads).slice().sort()
}

const currentServer = () => state.servers[state.servers.length - 1]

const commands = {
  /** Makes the client; connects unless `offline`. */
  async connect({ url, retryMs = 500, storage, peerId, gossip = false, subscribe = [], offline = false }) {
    state.adapter = new WebSocketClientAdapter(url, retryMs)
    // Seen before the repo sees it, so that a test can name the server that answered.
    state.adapter.on("peer-candidate", ({ peerId, peerMetadata }) =>
      state.servers.push({ peerId, ...peerMetadata }),
    )
    state.adapter.on("peer-disconnected", () => state.disconnections++)
    state.repo = new Repo({
      network: offline ? [] : [state.adapter],
      storage: storage && new NodeFSStorageAdapter(storage),
      peerId,
      enableRemoteHeadsGossiping: gossip,
    })
    if (subscribe.length > 0) state.repo.subscribeToRemotes(subscribe)
    // Not repo.storageId(): on a new directory that makes up a second id if it comes too early.
    const { storageId } = await state.repo.networkSubsystem.peerMetadata
    return { peerId: state.repo.peerId, storageId }
  },

  /** Goes off-line: closes the socket without reconnecting. */
  async offline() {
    state.adapter.disconnect()
  },

  /** On-line again (or for the first time, when `connect` said offline). */
  async online() {
    if (state.adapter.peerId) state.adapter.connect(state.adapter.peerId, state.adapter.peerMetadata)
    else state.repo.networkSubsystem.addNetworkAdapter(state.adapter)
  },

  /** Waits until the handshake was answered at least `count` times in all. */
  async server({ count = 1, timeoutMs = 20_000 }) {
    return until(`${count} handshakes`, timeoutMs, () =>
      state.servers.length >= count ? currentServer() : undefined,
    )
  },

  /** How often a server answered a handshake so far: an undisturbed client stays at one. */
  async handshakes() {
    return state.servers.length
  },

  /** How often the connection ended so far, by whomever: an undisturbed client stays at none. */
  async disconnections() {
    return state.disconnections
  },

  async create({ value = {} }) {
    const { handle } = track(state.repo.create(value))
    return { url: handle.url, heads: headsOf(handle.url) }
  },

  /** state: "ready" or "unavailable"; neither in time is an error. */
  async find({ url, timeoutMs = 20_000 }) {
    const signal = AbortSignal.timeout(timeoutMs)
    const handle = await state.repo.find(url, { allowableStates: ["ready", "unavailable"], signal })
    track(handle)
    return { state: handle.state }
  },

  /** Waits for a document that was unavailable, or is still empty, to be there. */
  async ready({ url, timeoutMs = 20_000 }) {
    await until(`${url} ready`, timeoutMs, () => entryOf(url).handle.isReady() || undefined)
  },

  /** Applies all `ops` in one change. */
  async change({ url, ops }) {
    entryOf(url).handle.change(doc => ops.forEach(op => applyOp(doc, op)))
    return { heads: headsOf(url) }
  },

  /** Types `text` at the end of the text at `path`, one change for each character, waiting `pauseMs` after each. */
  async type({ url, path, text, pauseMs = 0 }) {
    const { handle } = entryOf(url)
    for (const character of text) {
      handle.change(doc => {
        A.splice(doc, path, valueAt(doc, path).length, 0, character)
      })
      if (pauseMs > 0) await sleep(pauseMs)
    }
    return { heads: headsOf(url) }
  },

  async get({ url }) {
    const doc = documentOf(url)
    return { value: A.toJS(doc), heads: headsOf(url), changes: A.stats(doc).numChanges }
  },

  /** The value at `path`. */
  async value({ url, path }) {
    return valueAt(documentOf(url), path)
  },

  /** The document's file, in hexadecimal, and everything the program sees of it as one text. */
  async dump({ url }) {
    const doc = documentOf(url)
    return { file: Buffer.from(A.save(doc)).toString("hex"), shown: inspect(doc, EVERYTHING) }
  },

  async marks({ url, path }) {
    return A.marks(documentOf(url), path)
  },

  /** Which of the changes named are in the document. */
  async has({ url, hashes }) {
    const doc = documentOf(url)
    return hashes.filter(hash => A.inspectChange(doc, hash) !== null)
  },

  async waitHeads({ url, heads, timeoutMs = 20_000 }) {
    await until(
      `heads ${heads} of ${url}`,
      timeoutMs,
      () => sameHeads(headsOf(url), heads) || undefined,
    ).catch(error => {
      throw new Error(`${error.message}; has ${headsOf(url)}`)
    })
  },

  /** Waits until there is this JSON value at `path`. */
  async waitValue({ url, path, value, timeoutMs = 20_000 }) {
    const wanted = JSON.stringify(value)
    await until(`${wanted} at ${path} of ${url}`, timeoutMs, () =>
      JSON.stringify(valueAt(documentOf(url), path)) === wanted || undefined,
    )
  },

  /** Waits until the document holds at least `count` changes. */
  async waitChanges({ url, count, timeoutMs = 30_000 }) {
    await until(`${count} changes in ${url}`, timeoutMs, () =>
      A.stats(documentOf(url)).numChanges >= count || undefined,
    ).catch(error => {
      throw new Error(`${error.message}; has ${A.stats(documentOf(url)).numChanges}`)
    })
  },

  /** Creates `count` documents {number: 0..count} and returns their URLs. */
  async createMany({ count }) {
    return Array.from({ length: count }, (_, number) => track(state.repo.create({ number })).handle.url)
  },

  /** Looks for all of these documents at once; returns what each one is. */
  async openMany({ urls }) {
    const handles = await Promise.all(urls.map(url => state.repo.find(url)))
    return handles.map(handle => A.toJS(track(handle).handle.doc()))
  },

  /** The heads the server told us it has: the newest acknowledgement. */
  async acknowledged({ url }) {
    return remoteHeadsOf(url, currentServer()?.storageId) ?? []
  },

  /** Waits until the server has told us it has exactly what we have. */
  async waitAcknowledged({ url, timeoutMs = 20_000 }) {
    return until(`acknowledgement of ${url}`, timeoutMs, () => {
      const theirs = remoteHeadsOf(url, currentServer()?.storageId)
      return theirs && sameHeads(theirs, headsOf(url)) ? theirs : undefined
    })
  },

  /** Waits until we were told that the storage named has exactly these heads. */
  async waitRemoteHeads({ url, storageId, heads, timeoutMs = 20_000 }) {
    await until(`heads ${heads} at storage ${storageId}`, timeoutMs, () => {
      const theirs = remoteHeadsOf(url, storageId)
      return (theirs && sameHeads(theirs, heads)) || undefined
    })
  },

  async broadcast({ url, message }) {
    entryOf(url).handle.broadcast(message)
  },

  /** The ephemeral messages of a document, once there are `count`: [{senderId, message}]. */
  async ephemeral({ url, count = 0, timeoutMs = 20_000 }) {
    const { ephemeral } = entryOf(url)
    return until(`${count} ephemeral messages`, timeoutMs, () =>
      ephemeral.length >= count ? ephemeral : undefined,
    )
  },

  /** Writes everything to the storage directory: documents, and the throttled sync states. */
  async flush() {
    await state.repo.flush()
    await sleep(300)
  },

  async quit() {
    setImmediate(() => process.exit(0))
  },
}

const answer = message => process.stdout.write(JSON.stringify(message) + "\n")

// The stock client throws out of event handlers when a connection breaks at a bad moment (during
// the handshake, or while it sends); a browser logs that and goes on, so we do. Anything else is a bug.
const NETWORK_TROUBLE = /ECONNRESET|EPIPE|socket hang up|Websocket not ready|Unexpected server response|closed before the connection/
function onTrouble(error) {
  process.stderr.write(`uncaught: ${error?.stack ?? error}\n`)
  if (!NETWORK_TROUBLE.test(`${error?.code} ${error?.message}`)) process.exit(70)
}
process.on("uncaughtException", onTrouble)
process.on("unhandledRejection", onTrouble)

const lines = createInterface({ input: process.stdin })
for await (const line of lines) {
  const { id, command, ...parameters } = JSON.parse(line)
  try {
    if (!(command in commands)) throw new Error(`no command ${command}`)
    answer({ id, result: (await commands[command](parameters)) ?? null })
  } catch (error) {
    answer({ id, error: String(error?.message ?? error) })
  }
}
process.exit(0)
