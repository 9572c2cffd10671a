//! The bounds on what a peer may make us read, hold or compute.
//!
//! A decoder takes `&Limits` and compares every number a peer claims with one of these, and with
//! what is left of the input, before it allocates or loops by it.

/// Ops of one change, by default.
pub const OPS_PER_CHANGE: usize = 1_000_000;

/// Bounds for every decoder. The defaults suit a server that takes first uploads and pastes of a
/// million characters; each field says per what and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one WebSocket message. A first upload of a document is one message.
    pub frame_bytes: usize,
    /// Nesting of CBOR containers in one frame. The protocol needs four.
    pub cbor_depth: usize,
    /// Entries of one CBOR map or array in a frame. The largest the protocol needs are a
    /// subscription's storage ids and one storage's heads.
    pub cbor_entries: usize,
    /// Bytes of an `error` message's text, and of a protocol version's.
    pub text_bytes: usize,

    /// Hashes in each of a sync message's lists: heads, need, and each last sync. A document can
    /// have as many heads as it has actors editing at once.
    pub sync_hashes: usize,
    /// Haves in one sync message. Automerge writes none or one.
    pub sync_haves: usize,
    /// Bytes of one bloom filter: 1.25 for each change that the peer counts since the last sync.
    pub bloom_bytes: usize,
    /// Bits per entry of a bloom filter. Automerge writes 10.
    pub bloom_bits_per_entry: u32,
    /// Probes of a bloom filter, each a division for each change it is asked about. Automerge
    /// writes 7.
    pub bloom_probes: u32,
    /// Chunks in one sync message, or in one blob of them. A V1 client that was offline for a long
    /// time sends each keystroke as a chunk of about 100 bytes.
    pub chunks: usize,

    /// Document chunks in one sync message, each of which can take the time and memory that
    /// `document_*` bounds. Automerge sends a whole document as one.
    pub documents: usize,

    /// Bytes of one change after inflating.
    pub change_bytes: usize,
    /// Bytes that the compressed changes of one message may inflate to, together. There is no bound
    /// on the ratio: a paste of one letter a million times deflates a thousandfold.
    pub inflated_bytes: usize,
    /// Ops of one change. A paste is one op per character.
    pub ops_per_change: u64,
    /// Ops of all changes of one message, or their predecessors, whichever are more in each. Ops cost
    /// about 200 ns each to check, and runs of them a few bytes to send, so this bounds the time a
    /// message takes.
    pub ops_per_message: u64,
    /// Predecessors of all the ops of one change. One or none each, but for ops that settle a
    /// conflict.
    pub preds_per_change: u64,
    /// Bytes of memory that what the ops of one message or document need and make may take. Both are kept run by
    /// run, so honest changes need few bytes for each of theirs; hostile ones, run lengths in place of
    /// bytes.
    pub refs_bytes: usize,
    /// Deps of one change: the heads that its author saw.
    pub deps: usize,
    /// Bytes of an actor id. Automerge makes 16.
    pub actor_bytes: usize,
    /// Actors that one change refers to.
    pub other_actors: usize,
    /// Bytes of a change's commit message.
    pub message_bytes: usize,
    /// Bytes after a change's columns, where Automerge keeps an author.
    pub extra_bytes: usize,

    /// Bytes of a document chunk with its columns inflated.
    pub document_bytes: usize,
    /// Memory that loading a document chunk may take for a moment, by an estimate from its number
    /// of changes: a chunk of a few hundred bytes can claim millions.
    pub document_memory_bytes: usize,
    /// Changes in a document chunk.
    pub document_changes: u64,
    /// Ops in a document chunk, and successors.
    pub document_ops: u64,
    /// The same for a chunk of few bytes, since ops cost some 200 ns each to load and a run of them
    /// hardly anything to send. Such a run is honest when it is a paste of one letter, or a counter
    /// that was incremented for each of the most changes there may be: as many as `ops_per_change` and
    /// `document_changes` allow.
    pub document_ops_in_a_few_bytes: u64,
    /// Ops in a document chunk, and successors, for each of its bytes beyond those. Keystrokes have
    /// about two, pasted prose four to ten, the most repetitive logs fifty.
    pub document_ops_per_byte: u64,
    /// Actors in a document chunk.
    pub document_actors: usize,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Limits {
    /// These, for a document chunk of so many bytes: the work must be in proportion.
    #[must_use]
    pub fn for_document(&self, bytes: usize) -> Self {
        let in_proportion = self.document_ops_per_byte.saturating_mul(bytes as u64);
        let ops = in_proportion.saturating_add(self.document_ops_in_a_few_bytes);
        Self {
            document_ops: self.document_ops.min(ops),
            ..*self
        }
    }

    /// No bounds but those of the formats: for what was let in once and is read back.
    pub const fn unbounded() -> Self {
        Self {
            frame_bytes: usize::MAX,
            cbor_depth: 16,
            cbor_entries: usize::MAX,
            text_bytes: usize::MAX,
            sync_hashes: usize::MAX,
            sync_haves: usize::MAX,
            bloom_bytes: usize::MAX,
            bloom_bits_per_entry: u32::MAX,
            bloom_probes: u32::MAX,
            chunks: usize::MAX,
            documents: usize::MAX,
            change_bytes: usize::MAX,
            inflated_bytes: usize::MAX,
            ops_per_change: u64::MAX,
            ops_per_message: u64::MAX,
            preds_per_change: u64::MAX,
            refs_bytes: usize::MAX,
            deps: usize::MAX,
            actor_bytes: usize::MAX,
            other_actors: usize::MAX,
            message_bytes: usize::MAX,
            extra_bytes: usize::MAX,
            document_bytes: usize::MAX,
            document_changes: u64::MAX,
            document_ops: u64::MAX,
            document_ops_in_a_few_bytes: u64::MAX,
            document_ops_per_byte: u64::MAX,
            document_actors: usize::MAX,
            document_memory_bytes: usize::MAX,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: 32 * MIB,
            cbor_depth: 16,
            cbor_entries: 4096,
            text_bytes: 4 * KIB,
            sync_hashes: 16_384,
            sync_haves: 2,
            bloom_bytes: 2 * MIB,
            bloom_bits_per_entry: 64,
            bloom_probes: 32,
            chunks: 500_000,
            documents: 1,
            change_bytes: 16 * MIB,
            inflated_bytes: 64 * MIB,
            ops_per_change: OPS_PER_CHANGE as u64,
            ops_per_message: 4_000_000,
            preds_per_change: 4_000_000,
            refs_bytes: 256 * MIB,
            deps: 4096,
            actor_bytes: 128,
            other_actors: 16_384,
            message_bytes: 64 * KIB,
            extra_bytes: 64 * KIB,
            document_bytes: 256 * MIB,
            document_memory_bytes: 1024 * MIB,
            document_changes: 1_000_000,
            document_ops: 10_000_000,
            document_ops_in_a_few_bytes: 1_000_000,
            document_ops_per_byte: 100,
            document_actors: 32_768,
        }
    }
}
