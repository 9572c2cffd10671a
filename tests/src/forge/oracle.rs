//! Whether Automerge survives a set of changes.
//!
//! [`survives`] is what must hold of everything that was admitted, whatever it is: no panic and no
//! error in any order, the same document in every order, and a saved document that loads again and
//! can be edited on. It says nothing of whether the changes make sense.

use std::cell::Cell;
use std::collections::BTreeMap;

use automerge::transaction::Transactable as _;
use automerge::{
    AutoCommit, Automerge, Change, ChangeHash, LoadOptions, OnPartialLoad, PatchLog, ROOT,
    ReadDoc as _, ScalarValue, TextEncoding,
};
use bytes::Bytes;

use super::dump::{dump, objects, read_at};
use super::edits::edit_object;
use super::honest::order;
use super::model::ChangeModel;
use super::quiet::quietly;
use super::source::Source;

/// Clients count in these: Rust's, and JavaScript's.
const ENCODINGS: [TextEncoding; 2] = [TextEncoding::UnicodeCodePoint, TextEncoding::Utf16CodeUnit];

thread_local! {
    /// What was being done, for the report of a panic.
    static STAGE: Cell<&'static str> = const { Cell::new("") };
}

/// Checks all that must hold of a set of admitted changes, uncompressed chunks that are in a causal
/// order and complete. Says what failed first, and while doing what.
pub fn survives(changes: &[Bytes], source: &mut Source<'_>) -> Result<(), String> {
    let result = quietly(|| check(changes, source)).and_then(|checked| checked);
    result.map_err(|failure| format!("{}: {failure}", STAGE.get()))
}

fn stage(stage: &'static str) {
    STAGE.set(stage);
}

fn check(chunks: &[Bytes], source: &mut Source<'_>) -> Result<(), String> {
    stage("parse");
    let mut changes = Vec::new();
    for chunk in chunks {
        let change = Change::try_from(&chunk[..]).map_err(text)?;
        ensure(change.raw_bytes() == &chunk[..], || "other bytes".into())?;
        changes.push(change);
    }
    stage("objects");
    no_circles(chunks)?;
    let expected = Expected::new(&changes);
    for encoding in ENCODINGS {
        stage("all at once");
        let mut whole = Automerge::new_with_encoding(encoding);
        whole.apply_changes(changes.clone()).map_err(text)?;
        expected.graph(&whole)?;
        stage("reading");
        let value = dump(&whole).map_err(text)?;
        stage("one at a time");
        let single = one_at_a_time(&changes, encoding, source)?;
        expected.same(&single, &value)?;
        stage("load_incremental");
        let pieces = in_pieces(&changes, encoding, source)?;
        expected.same(&pieces, &value)?;
        stage("reading the past");
        read(&whole, &changes, source)?;
        stage("saving");
        // Each of those that came to be in another way, with another way to save.
        let (saver, saved) = match source.below(3) {
            0 => (&whole, whole.save_nocompress()),
            1 => (&single, single.save()),
            _ => (&pieces, pieces.save()),
        };
        stage("loading");
        let loaded = load(&saved, encoding)?;
        expected.same(&loaded, &value)?;
        expected.stored(&loaded)?;
        stage("saving again");
        ensure(saver.save() == loaded.save(), || "other bytes".into())?;
        edit_on(&loaded, whole, source)?;
    }
    part(&changes, source)
}

/// Whether no object is within itself. Automerge looks for the way from it to the root without end,
/// and keeps it all: the one thing that cannot be tried.
fn no_circles(chunks: &[Bytes]) -> Result<(), String> {
    let mut parents = BTreeMap::new();
    for chunk in chunks {
        let model = ChangeModel::decode(chunk);
        for (op, counter) in model.ops.iter().zip(model.start_op..) {
            let object = op.obj_actor.and_then(|actor| model.actor_at(actor));
            if let Some(actor) = object {
                let object = (actor.to_vec(), op.obj_counter.unwrap_or(0));
                parents.insert((model.actor.clone(), counter), object);
            }
        }
    }
    for start in parents.keys() {
        let mut at = start;
        for _ in 0..=parents.len() {
            match parents.get(at) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        ensure(!parents.contains_key(at), || {
            "an object within itself".into()
        })?;
    }
    Ok(())
}

/// What must be the same however the changes came.
struct Expected {
    heads: Vec<ChangeHash>,
    raw: BTreeMap<ChangeHash, Vec<u8>>,
}

impl Expected {
    fn new(changes: &[Change]) -> Self {
        let mut heads: Vec<_> = changes.iter().map(Change::hash).collect();
        heads.retain(|hash| !changes.iter().any(|change| change.deps().contains(hash)));
        heads.sort_unstable();
        heads.dedup();
        let raw = changes
            .iter()
            .map(|change| (change.hash(), change.raw_bytes().to_vec()));
        Self {
            heads,
            raw: raw.collect(),
        }
    }

    fn graph(&self, document: &Automerge) -> Result<(), String> {
        ensure(sorted_heads(document) == self.heads, || {
            "other heads".into()
        })?;
        let missing = document.get_missing_deps(&[]);
        ensure(missing.is_empty(), || format!("missing {missing:?}"))
    }

    fn same(&self, document: &Automerge, value: &str) -> Result<(), String> {
        self.graph(document)?;
        same_value(document, value)
    }

    /// The changes that a document gives back are those that it was given.
    fn stored(&self, document: &Automerge) -> Result<(), String> {
        let changes = document.get_changes(&[]);
        ensure(changes.len() == self.raw.len(), || {
            format!("{} changes of {}", changes.len(), self.raw.len())
        })?;
        for change in changes {
            let raw = self.raw.get(&change.hash()).map(Vec::as_slice);
            ensure(raw == Some(change.raw_bytes()), || {
                format!("{} is another change", change.hash())
            })?;
        }
        Ok(())
    }
}

/// A client that is told of every change by itself, and shows it.
fn one_at_a_time(
    changes: &[Change],
    encoding: TextEncoding,
    source: &mut Source<'_>,
) -> Result<Automerge, String> {
    let mut document = Automerge::new_with_encoding(encoding);
    let shown = source.chance(2);
    for index in order(changes, source) {
        let mut log = PatchLog::new(shown);
        let change = [changes[index].clone()];
        document
            .apply_changes_log_patches(change, &mut log)
            .map_err(text)?;
        document.make_patches(&mut log);
    }
    Ok(document)
}

/// A client that loads pieces of different lengths, sometimes with what it has already.
fn in_pieces(
    changes: &[Change],
    encoding: TextEncoding,
    source: &mut Source<'_>,
) -> Result<Automerge, String> {
    let order = order(changes, source);
    let mut document = Automerge::new_with_encoding(encoding);
    let mut from = 0;
    while from < order.len() {
        let to = from + 1 + source.below(order.len() - from);
        let mut bytes = Vec::new();
        for index in &order[from..to] {
            bytes.extend_from_slice(changes[*index].raw_bytes());
        }
        let before = document.get_heads();
        document.load_incremental(&bytes).map_err(text)?;
        document.diff(&before, &document.get_heads());
        from = to;
    }
    Ok(document)
}

/// Reads all, now and at some point of the past.
fn read(document: &Automerge, changes: &[Change], source: &mut Source<'_>) -> Result<(), String> {
    let heads = document.get_heads();
    document.hydrate(None);
    document.current_state();
    document.diff(&[], &heads);
    document.diff(&heads, &[]);
    if changes.is_empty() {
        return Ok(());
    }
    let past = [changes[source.below(changes.len())].hash()];
    let other = [changes[source.below(changes.len())].hash()];
    document.hydrate(Some(&past));
    document.diff(&past, &heads);
    document.diff(&past, &other);
    read_at(document, &past).map_err(text)
}

/// The document goes on: edits of every kind on top, with what they come to known to others.
fn edit_on(
    loaded: &Automerge,
    mut other: Automerge,
    source: &mut Source<'_>,
) -> Result<(), String> {
    stage("editing on");
    let encoding = loaded.text_encoding();
    let mut document = AutoCommit::load_with_options(&loaded.save(), strict(encoding))
        .map_err(text)?
        .with_actor([0xee; 3][..].into());
    let heads = document.get_heads();
    let mut found = objects(&document).map_err(text)?;
    document
        .put(ROOT, "honest", ScalarValue::counter(1))
        .map_err(text)?;
    document.increment(ROOT, "honest", 2).map_err(text)?;
    for _ in 0..6 {
        let (object, _) = source.pick(&found);
        // Not every edit is possible everywhere.
        let _ = edit_object(&mut document, &object, &mut found, source);
        if source.chance(3) {
            document.commit();
        }
    }
    document.delete(ROOT, "honest").map_err(text)?;
    document.commit();
    stage("reading what was edited on");
    // What it says is not compared: after increments of conflicted keys a document of Automerge 0.12
    // shows other values than others have of the same changes, and itself after loading.
    dump(&document).map_err(text)?;
    stage("loading what was edited on");
    let saved = document.save();
    let again = load(&saved, encoding)?;
    let value = dump(&again).map_err(text)?;
    stage("applying what was edited on");
    let changes = document.get_changes(&heads);
    other.apply_changes(changes).map_err(text)?;
    same_value(&other, &value)
}

/// What came first is a document too: clients have it for a while, and the server may save it.
fn part(changes: &[Change], source: &mut Source<'_>) -> Result<(), String> {
    stage("a part");
    let mut order = order(changes, source);
    order.truncate(source.below(changes.len() + 1));
    let part: Vec<_> = order.into_iter().map(|at| changes[at].clone()).collect();
    let expected = Expected::new(&part);
    let mut document = Automerge::new();
    document.apply_changes(part).map_err(text)?;
    expected.graph(&document)?;
    stage("reading a part");
    let value = dump(&document).map_err(text)?;
    stage("loading a part");
    let loaded = load(&document.save(), document.text_encoding())?;
    expected.same(&loaded, &value)?;
    expected.stored(&loaded)
}

fn strict(encoding: TextEncoding) -> LoadOptions<'static> {
    LoadOptions::new()
        .on_partial_load(OnPartialLoad::Error)
        .text_encoding(encoding)
}

fn load(saved: &[u8], encoding: TextEncoding) -> Result<Automerge, String> {
    Automerge::load_with_options(saved, strict(encoding)).map_err(text)
}

fn same_value(document: &Automerge, value: &str) -> Result<(), String> {
    let found = dump(document).map_err(text)?;
    ensure(found == value, || difference(&found, value))
}

/// Where two dumps part, with a little of both.
fn difference(found: &str, expected: &str) -> String {
    let common = found.chars().zip(expected.chars());
    let at = common.take_while(|(a, b)| a == b).count();
    let show =
        |dump: &str| -> String { dump.chars().skip(at.saturating_sub(30)).take(90).collect() };
    format!("another value: {:?}, not {:?}", show(found), show(expected))
}

fn sorted_heads(document: &Automerge) -> Vec<ChangeHash> {
    let mut heads = document.get_heads();
    heads.sort_unstable();
    heads
}

fn ensure(good: bool, failure: impl FnOnce() -> String) -> Result<(), String> {
    if good { Ok(()) } else { Err(failure()) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
