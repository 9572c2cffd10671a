//! A document's changes, in the order in which they arrived.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use automerge::{ActorId, Change, ChangeHash};
use bytes::Bytes;
use concord_shared::change::{Chunk, decode_document, parse_chunks};
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::limits::Limits;

use super::builder::{Builder, ChangeError};
use super::file::{self, Ending, FileError};
use crate::document::arrivals;
use crate::document::history::History;
use crate::materialise;
use crate::store::{LogRecord, Store, StoreError};

/// Times of changes from this on are milliseconds: as seconds they would be in the year 5138.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// What a change's own time says: see [`Recorded::made_ms`].
pub fn made_ms(timestamp: i64) -> Option<i64> {
    match timestamp {
        0 => None,
        time if time.unsigned_abs() < MILLISECONDS_FROM => Some(time.saturating_mul(1000)),
        time => Some(time),
    }
}

/// One change, and what is known of its arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub(super) change: Change,
    /// When it came, in milliseconds since the Unix epoch; `None` where that was not kept.
    pub arrived_ms: Option<u64>,
    /// Who sent it; `None` where that was not kept.
    pub principal: Option<PrincipalId>,
}

impl Recorded {
    /// Its hash.
    pub fn hash(&self) -> ChangeHash {
        self.change.hash()
    }

    /// The changes that it was made on top of.
    pub fn deps(&self) -> &[ChangeHash] {
        self.change.deps()
    }

    /// The replica that made it.
    pub fn actor(&self) -> &ActorId {
        self.change.actor_id()
    }

    /// Which of that replica's changes it is, from 1.
    pub fn seq(&self) -> u64 {
        self.change.seq()
    }

    /// How many ops it has.
    pub fn ops(&self) -> usize {
        self.change.len()
    }

    /// What its author wrote about it.
    pub fn message(&self) -> Option<&str> {
        self.change.message()
    }

    /// When its author says that it was made, in milliseconds since the Unix epoch. Automerge leaves the unit
    /// open, and clients write seconds or milliseconds: they are told apart by size. `None` for 0, which is
    /// what is written when nobody gives a time.
    pub fn made_ms(&self) -> Option<i64> {
        made_ms(self.change.timestamp())
    }

    /// The change chunk, uncompressed: what any Automerge applies.
    pub fn bytes(&self) -> &[u8] {
        self.change.raw_bytes()
    }

    /// The change, as Automerge takes it.
    pub fn change(&self) -> &Change {
        &self.change
    }
}

/// The changes of one document, each after those it depends on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    pub(super) document: Option<DocumentId>,
    pub(super) changes: Vec<Recorded>,
}

/// A recording out of a file, and whether the file was whole.
#[derive(Debug)]
pub struct Loaded {
    /// What is there.
    pub recording: Recording,
    /// How the file ended.
    pub ending: Ending,
}

/// Why a history can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is neither an `.automerge` file nor a recording.
    #[error("{} is neither an .automerge file nor a recording", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
    },
    /// A recording that is damaged.
    #[error("in the recording {}", path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<FileError>,
    },
    /// An `.automerge` file that is damaged.
    #[error("in {}", path.display())]
    Changes {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ChangeError,
    },
    /// A stored change that can't be replayed.
    #[error("stored document {document}")]
    Stored {
        /// The document.
        document: DocumentId,
        /// What is wrong with it.
        source: ChangeError,
    },
    /// A stored document whose snapshot does not load.
    #[error(transparent)]
    Snapshot(#[from] materialise::LoadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Recording {
    /// The document, where it is known.
    pub fn document(&self) -> Option<&DocumentId> {
        self.document.as_ref()
    }

    /// The changes, in the order of arrival.
    pub fn changes(&self) -> &[Recorded] {
        &self.changes
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many replicas made them.
    pub fn actors(&self) -> usize {
        let actors: HashSet<&ActorId> = self.changes.iter().map(Recorded::actor).collect();
        actors.len()
    }

    /// How many came at a time that is not known.
    pub fn untimed(&self) -> usize {
        let untimed = self.changes.iter().filter(|at| at.arrived_ms.is_none());
        untimed.count()
    }

    /// The changes that no other builds on, ascending: the heads of whoever has all.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let deps = self.changes.iter().flat_map(Recorded::deps);
        let covered: HashSet<&ChangeHash> = deps.collect();
        let hashes = self.changes.iter().map(Recorded::hash);
        let mut heads: Vec<ChangeHash> = hashes.filter(|hash| !covered.contains(hash)).collect();
        heads.sort_unstable();
        heads
    }

    /// Reads a file, an `.automerge` file or a recording: its beginning tells which.
    pub fn load(path: &Path) -> Result<Loaded, LoadError> {
        let unreadable = |source| LoadError::Read {
            path: path.to_owned(),
            source,
        };
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let start = io::BufRead::fill_buf(&mut reader).map_err(unreadable)?;
        if file::is_automerge(start) {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map_err(unreadable)?;
            let recording = Self::from_automerge(bytes).map_err(|source| LoadError::Changes {
                path: path.to_owned(),
                source,
            })?;
            return Ok(Loaded {
                recording,
                ending: Ending::Closed,
            });
        }
        if !file::is_recording(start) {
            return Err(LoadError::Unknown {
                path: path.to_owned(),
            });
        }
        file::read(reader).map_err(|source| LoadError::Recording {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// The changes of what Automerge saved: document chunks, change chunks, or both, one after the other. What
    /// comes before its deps takes its place behind them; what comes twice counts once.
    pub fn from_automerge(bytes: impl Into<Bytes>) -> Result<Self, ChangeError> {
        let chunk = |error| ChangeError::Chunk(Box::new(error));
        // As `import`: a file of one's own knows no network limits.
        let limits = Limits::unbounded();
        let mut builder = Builder::new(None);
        for parsed in parse_chunks(&bytes.into(), &limits).map_err(chunk)? {
            let changes = match parsed {
                Chunk::Change(change) => vec![change],
                Chunk::Document(bytes) => decode_document(&bytes, &limits).map_err(chunk)?,
            };
            for change in changes {
                builder.insert_bytes(&change.bytes, None)?;
            }
        }
        builder.finish()
    }

    /// The changes of a stored document, in the order in which the server admitted them; `None` if the document
    /// is not there. Times and principals are known of the changes that came to a server, not of what was imported,
    /// nor of what older builds made snapshots of. Blocks.
    pub fn from_store(store: &dyn Store, document: &DocumentId) -> Result<Option<Self>, LoadError> {
        let Some(contents) = store.contents(document)? else {
            return Ok(None);
        };
        let in_document = |source| LoadError::Stored {
            document: document.clone(),
            source,
        };
        let mut builder = Builder::new(Some(document.clone()));
        if let Some(snapshot) = contents.snapshot {
            let mut changes = materialise::load(&[snapshot])?.get_changes(&[]);
            let graph = store.open(document)?.and_then(|stored| stored.graph);
            let mut arrivals = if sort_as_admitted(&mut changes, graph) {
                arrivals::between(store, document, 0, contents.base)?
            } else {
                Vec::new()
            }
            .into_iter();
            for change in changes {
                let arrival = arrivals.next().flatten();
                let (at, by) = arrival.map(|at| (at.at_ms, at.principal)).unzip();
                builder.add(change, at, by).map_err(in_document)?;
            }
        }
        for record in contents.tail {
            let LogRecord {
                received_at_ms,
                principal,
                changes,
                ..
            } = record;
            for bytes in changes {
                let (at, by) = (Some(received_at_ms), Some(principal.clone()));
                builder.push(&bytes, at, by).map_err(in_document)?;
            }
        }
        builder.finish().map(Some).map_err(in_document)
    }
}

/// Automerge's order is causal, but its own. The stored graph numbers changes as they were admitted; without
/// one that can be read, Automerge's order stays. Whether they are in the order of admission.
fn sort_as_admitted(changes: &mut [Change], graph: Option<Bytes>) -> bool {
    let Some(Ok(history)) = graph.map(|bytes| History::decode(&bytes)) else {
        return false;
    };
    let graph = history.graph();
    let is_theirs = changes.len() == graph.len() as usize
        && changes.iter().all(|change| graph.contains(&change.hash()));
    if is_theirs {
        changes.sort_by_cached_key(|change| graph.find(&change.hash()));
    }
    is_theirs
}
