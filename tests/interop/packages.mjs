// Stock automerge-repo, as npm has it, for tests that run in Node and lie elsewhere.

export * as A from "@automerge/automerge"
export { Counter, RawString, Repo, updateText } from "@automerge/automerge-repo"
export { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
export { default as WebSocket } from "ws"
