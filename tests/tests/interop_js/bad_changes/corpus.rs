//! What the hostile clients send, and what has to come of it.

use std::collections::HashSet;

use automerge::sync::{ChunkList, Message, MessageFlags, MessageVersion};
use automerge::{Change, ChangeHash};
use bytes::Bytes;
use concord_server::document::admission::MAX_STEPS_PER_MESSAGE;
use concord_server::document::graph::GraphError;
use concord_server::document::history::{History, HistoryError};
use concord_server::document::past::Steps;
use concord_shared::ErrorCode;
use concord_shared::change::{Chunk, parse_message};
use concord_shared::limits::Limits;
use concord_tests::forge::context::Context;
use concord_tests::forge::facts::{Case, cases, concurrent, good};
use concord_tests::forge::honest;
use concord_tests::forge::model::{ChangeModel, hash};
use concord_tests::forge::mutate::mutate;
use concord_tests::forge::raw::mutate_bytes;
use concord_tests::forge::renaming::renamed;
use concord_tests::forge::source::Source;

/// Histories with a wrong change at their end.
const HISTORIES: u64 = 100;
/// Wrong changes for each, all in the same place; fewer where one is taken, since that has the place.
const MUTANTS_PER_HISTORY: usize = 6;

/// What has to become of the changes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are in the document.
    Admitted,
    /// They wait for something that is nowhere.
    Parked,
    /// One is refused, with this code.
    Refused(ErrorCode),
}

/// One message of a hostile client.
#[derive(Debug)]
pub(super) struct Attack {
    /// What is wrong, and how to make it again.
    pub(super) what: String,
    /// Whether Automerge is known not to survive it.
    pub(super) is_harmful: bool,
    changes: Vec<Bytes>,
    pub(super) fate: Fate,
    /// Of its changes, those that have to be in the document afterwards.
    pub(super) taken: Vec<ChangeHash>,
    /// And those that must not.
    pub(super) kept_out: Vec<ChangeHash>,
}

impl Attack {
    /// `before` is all that the changes may refer to.
    fn new(what: String, before: &History, changes: Vec<Bytes>) -> Self {
        let (fate, admitted) = judge(&mut before.clone(), &changes);
        let hashes = changes.iter().map(|bytes| hash(bytes));
        let (taken, kept_out) = hashes.partition(|hash| admitted.contains(hash));
        Self {
            what,
            is_harmful: false,
            changes,
            fate,
            taken,
            kept_out,
        }
    }

    /// As an old client would send it, or as one of today.
    pub(super) fn message(&self, version: MessageVersion) -> Vec<u8> {
        let chunks = self.changes.iter().map(|bytes| bytes.to_vec());
        let (changes, flags) = match version {
            MessageVersion::V1 => (ChunkList::from(chunks.collect::<Vec<_>>()), None),
            MessageVersion::V2 => {
                let blob = self.changes.concat();
                (ChunkList::from(blob), Some(MessageFlags::new()))
            }
        };
        let message = Message {
            heads: self
                .changes
                .last()
                .map(|last| hash(last))
                .into_iter()
                .collect(),
            need: Vec::new(),
            have: Vec::new(),
            changes,
            flags,
            version,
        };
        message.encode()
    }
}

/// What a server makes of a message's changes, and which it admits, without a server: it parses them all,
/// and then stops at the first that it does not want.
fn judge(history: &mut History, changes: &[Bytes]) -> (Fate, HashSet<ChangeHash>) {
    let mut admitted = HashSet::new();
    let chunks = match parse_message(changes, &Limits::default()) {
        Ok(chunks) => chunks,
        Err(error) => return (Fate::Refused(error.code()), admitted),
    };
    for chunk in chunks {
        let Chunk::Change(change) = chunk else {
            panic!("the forge makes changes alone");
        };
        match history.admit(&change, &mut Steps::new(MAX_STEPS_PER_MESSAGE)) {
            Ok(_) => admitted.insert(change.hash),
            Err(HistoryError::Graph(GraphError::MissingDeps { .. })) => {
                return (Fate::Parked, admitted);
            }
            Err(error) => return (Fate::Refused(error.code()), admitted),
        };
    }
    (Fate::Admitted, admitted)
}

/// A history of these changes.
fn history(changes: &[Bytes]) -> History {
    let mut history = History::new();
    let (fate, _) = judge(&mut history, changes);
    assert_eq!(fate, Fate::Admitted, "a good beginning");
    history
}

/// What the facts are on top of.
pub(super) fn beginning() -> Attack {
    let changes = vec![good().encode(), concurrent().encode()];
    Attack::new("the beginning".to_owned(), &History::new(), changes)
}

/// All there is, in this order.
pub(super) fn corpus() -> Vec<Attack> {
    let mut all = facts();
    for seed in 0..HISTORIES {
        mutants(seed, &mut all);
    }
    all
}

/// Every fact, each by an actor of its own, so that those that are harmless do not stand in the way of others.
fn facts() -> Vec<Attack> {
    let before = history(&[good().encode(), concurrent().encode()]);
    let attack = |(number, (what, is_harmless, models)): (u16, Case)| {
        let [high, low] = number.to_be_bytes();
        let models = renamed(&models, |actor| match actor {
            [2] => vec![2, high, low],
            other => other.to_vec(),
        });
        let changes = models.iter().map(ChangeModel::encode).collect();
        Attack {
            is_harmful: !is_harmless,
            ..Attack::new(what.to_owned(), &before, changes)
        }
    };
    (0..).zip(cases()).map(attack).collect()
}

/// A part of an honest history, and changes that are wrong versions of its next one.
fn mutants(seed: u64, all: &mut Vec<Attack>) {
    let mut source = Source::seeded(seed);
    let changes = honest::history(&mut source, 3 + seed as usize % 10).changes;
    if changes.is_empty() {
        return;
    }
    let models: Vec<_> = changes
        .iter()
        .map(|change| ChangeModel::decode(change.raw_bytes()))
        .collect();
    let [.., high, low] = seed.to_be_bytes();
    let models = renamed(&models, |actor| [&[0xf0, high, low], actor].concat());
    let chunks: Vec<Bytes> = models.iter().map(ChangeModel::encode).collect();
    let parsed = chunks.iter().map(|chunk| Change::try_from(&chunk[..]));
    let parsed: Vec<Change> = parsed.collect::<Result<_, _>>().expect("honest changes");
    let context = Context::new(&parsed);

    let victim = source.below(chunks.len());
    let before = history(&chunks[..victim]);
    if victim > 0 {
        let what = format!("seed {seed}: an honest history");
        let changes = chunks[..victim].to_vec();
        all.push(Attack::new(what, &History::new(), changes));
    }
    for number in 0..MUTANTS_PER_HISTORY {
        let mut model = models[victim].clone();
        let (chunk, done) = if source.chance(8) {
            (mutate_bytes(&mut source, &model), vec!["bytes"])
        } else {
            let done = mutate(&mut source, &mut model, &context);
            (model.encode(), done)
        };
        let what = format!("seed {seed}, mutant {number}: {done:?}");
        let attack = Attack::new(what, &before, vec![chunk]);
        let is_admitted = attack.fate == Fate::Admitted;
        all.push(attack);
        if is_admitted {
            return;
        }
    }
}
