/** What every entry of the package offers beside `connect`. */
export type { Client, ClientEvents, ClientStatus } from "./client/client.js";
export type { ConnectOptions } from "./client/connect.js";
export type {
  ChangeOptions,
  DocumentEvents,
  DocumentHandle,
  DocumentStatus,
  PatchesEvent,
  TextEdit,
} from "./client/document.js";
export type { DocumentState, Reading } from "./client/live.js";
export type { PeerPresence, Presence, PresenceState } from "./client/presence.js";
export type { ConnectionFault, ConnectionState } from "./client/uplink.js";
export { StorageError, type StorageFault } from "./storage/storage.js";
export type { Role } from "./tabs/tabs.js";
export { deleteAt, insertAt, splice, updateText } from "./value/draft.js";
export { PositionError, ValueError } from "./value/errors.js";
export { Counter, Float, ImmutableString } from "./value/types.js";
export type { Frozen, Patch, Value } from "./value/types.js";
export type { ChangeHash, ChangeInfo, Heads, Prop } from "./wasm.js";
