//! Editing traces in the public `editing-traces` format: JSON, often gzipped, sequential or concurrent.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

/// Bytes of JSON that are read from a trace, so that a small gzip file can't fill the memory.
const MAX_TRACE_BYTES: u64 = 1 << 30;

/// A history of edits to one text.
#[derive(Debug)]
pub struct Trace {
    /// How many people typed.
    pub agents: usize,
    /// Whether transactions name their parents; otherwise each follows the one before.
    pub concurrent: bool,
    /// The text before the first transaction.
    pub start: String,
    /// The text after the last one.
    pub end: String,
    /// In an order in which parents come first.
    pub transactions: Vec<Transaction>,
}

/// Edits that were made together.
#[derive(Debug)]
pub struct Transaction {
    /// Who typed, below [`Trace::agents`].
    pub agent: usize,
    /// The version that the edits' positions refer to: the merge of these earlier transactions, or the
    /// start of the trace if there are none.
    pub parents: Vec<usize>,
    /// In the order of making.
    pub edits: Vec<Edit>,
}

/// One replacement: `(position, deleted, inserted)`, counted in Unicode code points.
#[derive(Debug, Deserialize)]
pub struct Edit(pub usize, pub usize, pub String);

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not JSON of this format.
    #[error("{} is no editing trace", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// A transaction names a parent that is not before it.
    #[error("transaction {transaction} has parent {parent}, which does not come before it")]
    Parent {
        /// The transaction's place.
        transaction: usize,
        /// The parent it names.
        parent: usize,
    },
    /// A transaction of an agent that the trace does not have.
    #[error("transaction {transaction} is agent {agent}'s, and there are {agents}")]
    Agent {
        /// The transaction's place.
        transaction: usize,
        /// Whose it is.
        agent: usize,
        /// How many agents there are.
        agents: usize,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    kind: Option<String>,
    num_agents: Option<usize>,
    #[serde(default)]
    start_content: String,
    end_content: String,
    txns: Vec<Txn>,
}

#[derive(Deserialize)]
struct Txn {
    parents: Option<Vec<usize>>,
    #[serde(default)]
    agent: usize,
    patches: Vec<Edit>,
}

impl Trace {
    /// Reads and checks the trace in `path`, gzipped or not.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let bytes = read(path).map_err(|source| TraceError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: Layout = serde_json::from_slice(&bytes).map_err(|source| TraceError::Format {
            path: path.to_owned(),
            source,
        })?;
        let concurrent = file.kind.as_deref() == Some("concurrent");
        let agents = file.num_agents.unwrap_or(1);
        let mut transactions = Vec::with_capacity(file.txns.len());
        for (transaction, txn) in file.txns.into_iter().enumerate() {
            let parents = match txn.parents {
                Some(parents) if concurrent => parents,
                _ => transaction.checked_sub(1).into_iter().collect(),
            };
            if let Some(&parent) = parents.iter().find(|&&parent| parent >= transaction) {
                return Err(TraceError::Parent {
                    transaction,
                    parent,
                });
            }
            if txn.agent >= agents {
                return Err(TraceError::Agent {
                    transaction,
                    agent: txn.agent,
                    agents,
                });
            }
            transactions.push(Transaction {
                agent: txn.agent,
                parents,
                edits: txn.patches,
            });
        }
        Ok(Self {
            agents,
            concurrent,
            start: file.start_content,
            end: file.end_content,
            transactions,
        })
    }

    /// The transactions that no other follows: merged, they are the end of the trace.
    pub fn last(&self) -> Vec<usize> {
        let mut last: BTreeSet<usize> = (0..self.transactions.len()).collect();
        for parent in self
            .transactions
            .iter()
            .flat_map(|transaction| &transaction.parents)
        {
            last.remove(parent);
        }
        last.into_iter().collect()
    }

    /// How many single edits all transactions make.
    pub fn edits(&self) -> usize {
        self.transactions
            .iter()
            .map(|transaction| transaction.edits.len())
            .sum()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(File::open(path)?);
    let gzip = io::BufRead::fill_buf(&mut file)?.starts_with(&[0x1f, 0x8b]);
    let mut bytes = Vec::new();
    if gzip {
        GzDecoder::new(file)
            .take(MAX_TRACE_BYTES)
            .read_to_end(&mut bytes)?;
    } else {
        file.take(MAX_TRACE_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read_text(json: &str, gzip: bool) -> Result<Trace, TraceError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            encoder.write_all(json.as_bytes()).unwrap();
            encoder.finish().unwrap();
        } else {
            file.write_all(json.as_bytes()).unwrap();
        }
        Trace::read(file.path())
    }

    #[test]
    fn sequential_transactions_follow_each_other() {
        let json = r#"{"startContent":"a","endContent":"abc","txns":[
            {"time":"2020","patches":[[1,0,"b"]]},{"patches":[[2,0,"c"],[0,0,""]]}]}"#;
        for gzip in [false, true] {
            let trace = read_text(json, gzip).unwrap();
            assert_eq!(
                (trace.agents, trace.concurrent, trace.edits()),
                (1, false, 3)
            );
            assert_eq!(trace.transactions[0].parents, Vec::<usize>::new());
            assert_eq!(trace.transactions[1].parents, [0]);
        }
    }

    #[test]
    fn transactions_must_follow_their_parents_and_have_an_agent() {
        let trace = |parents: &str, agent: usize| {
            let json = format!(
                r#"{{"kind":"concurrent","endContent":"","numAgents":2,"txns":[
                {{"parents":[],"agent":0,"patches":[]}},{{"parents":{parents},"agent":{agent},"patches":[]}}]}}"#
            );
            read_text(&json, false)
        };
        assert_eq!(trace("[0]", 1).unwrap().transactions[1].parents, [0]);
        assert_eq!(trace("[0]", 1).unwrap().last(), [1]);
        assert_eq!(trace("[]", 1).unwrap().last(), [0, 1]);
        assert_eq!(
            trace("[]", 1).unwrap().transactions[1].parents,
            Vec::<usize>::new()
        );
        assert!(matches!(
            trace("[1]", 1),
            Err(TraceError::Parent {
                transaction: 1,
                parent: 1
            })
        ));
        assert!(matches!(
            trace("[0]", 2),
            Err(TraceError::Agent {
                agent: 2,
                agents: 2,
                ..
            })
        ));
        assert!(matches!(
            read_text("[]", false),
            Err(TraceError::Format { .. })
        ));
    }
}
