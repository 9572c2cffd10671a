//! Documents, and the changes that are typed into them: real ones of Automerge, made before the clock runs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ChangeHash, ObjId, ObjType, ROOT, TextEncoding};
use bytes::Bytes;
use concord_server::cli::replay::trace::Trace;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Settings;

/// Names the folder of the recorded histories, where they lie elsewhere than beside the repository.
pub const TRACES_VARIABLE: &str = "CONCORD_TEST_TRACES";

/// The history of a real paper, typed by one author: 259,778 keystrokes.
const PAPER: &str = "automerge-paper.json.gz";

/// Keystrokes of the document that stands for the paper where there is none.
const SYNTHETIC_KEYSTROKES: usize = 250_000;

/// The writers of a document made for a measurement, and nothing else, have these actors.
const SEED: u64 = 20_260_101;

/// A document as it is before a measurement.
#[derive(Debug, Clone)]
pub struct Base {
    /// How it is called in results.
    pub name: String,
    /// The whole document, saved: what a client uploads first.
    pub saved: Bytes,
    /// Its heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Changes in it.
    pub changes: usize,
    doc: AutoCommit,
}

/// What writers will type, a chain of one-keystroke changes each, beside each other.
#[derive(Debug)]
pub struct Script {
    /// By writer and number.
    pub changes: Vec<Vec<Scripted>>,
    /// Which writer's how-manieth change a hash is.
    pub places: HashMap<ChangeHash, (usize, usize)>,
}

/// One change.
#[derive(Debug)]
pub struct Scripted {
    /// Its hash.
    pub hash: ChangeHash,
    /// Its chunk, uncompressed.
    pub bytes: Vec<u8>,
}

impl Base {
    /// A text that was typed in `keystrokes` changes, with words deleted and mistakes corrected on the way.
    pub fn typed(keystrokes: usize) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(SEED);
        let (mut doc, text) = empty()?;
        let (mut length, mut cursor) = (0, 0);
        for _ in 0..keystrokes {
            if random.random_ratio(1, 40) {
                cursor = random.random_range(0..=length);
            }
            if cursor > 0 && random.random_ratio(3, 10) {
                cursor -= 1;
                doc.splice_text(&text, cursor, 1, "")?;
                length -= 1;
            } else {
                let letter = char::from(random.random_range(b'a'..=b'z'));
                doc.splice_text(&text, cursor, 0, &letter.to_string())?;
                cursor += 1;
                length += 1;
            }
            doc.commit();
        }
        Ok(Self::new(
            &format!("{keystrokes} keystrokes"),
            doc,
            keystrokes + 1,
        ))
    }

    /// The recorded paper where it is at hand, else a document of that size, unless sizes are shrunk.
    pub fn large(settings: &Settings) -> Result<Self> {
        match paper() {
            Some(path) if settings.shrink == 1 => Self::recorded(&path),
            _ => Self::typed(settings.size(SYNTHETIC_KEYSTROKES, 500)),
        }
    }

    fn recorded(path: &Path) -> Result<Self> {
        let trace = Trace::read(path)?;
        let (mut doc, text) = empty()?;
        for transaction in &trace.transactions {
            for edit in &transaction.edits {
                doc.splice_text(&text, edit.0, edit.1.cast_signed(), &edit.2)?;
            }
            doc.commit();
        }
        Ok(Self::new("the paper", doc, trace.transactions.len() + 1))
    }

    /// A User with five Companies of ten Meetings each, made as an application would: one change for each.
    pub fn user() -> Result<Self> {
        let mut doc =
            AutoCommit::new_with_encoding(TextEncoding::Utf16CodeUnit).with_actor(actor(0, 0));
        doc.put(ROOT, "name", "Ada Lovelace")?;
        doc.put(ROOT, "email", "ada@example.org")?;
        let companies = doc.put_object(ROOT, "companies", ObjType::List)?;
        doc.commit();
        let mut changes = 1;
        for at in 0..5 {
            let company = doc.insert_object(&companies, at, ObjType::Map)?;
            doc.put(&company, "name", format!("Company number {at}"))?;
            doc.put(&company, "city", "Rotterdam")?;
            let meetings = doc.put_object(&company, "meetings", ObjType::List)?;
            doc.commit();
            changes += 1;
            for number in 0..10 {
                let meeting = doc.insert_object(&meetings, number, ObjType::Map)?;
                doc.put(&meeting, "title", format!("Board meeting {number}"))?;
                doc.put(
                    &meeting,
                    "date",
                    format!("2026-{:02}-15T10:00:00Z", number + 1),
                )?;
                let agenda = doc.put_object(&meeting, "agenda", ObjType::Text)?;
                doc.splice_text(
                    &agenda,
                    0,
                    0,
                    "Minutes of the last meeting; figures; any other business",
                )?;
                doc.commit();
                changes += 1;
            }
        }
        Ok(Self::new("User, 5 Companies, 50 Meetings", doc, changes))
    }

    /// Lets one writer make edits, each a change on the one before, and gives their chunks, uncompressed.
    pub fn edits(
        &self,
        edits: usize,
        mut edit: impl FnMut(&mut AutoCommit, usize) -> Result<()>,
    ) -> Result<Vec<Bytes>> {
        let mut doc = self.doc.clone().with_actor(actor(2, 0));
        let mut chunks = Vec::with_capacity(edits);
        for number in 0..edits {
            edit(&mut doc, number)?;
            doc.commit();
            let change = doc
                .get_last_local_change()
                .context("a change just made is there")?;
            chunks.push(Bytes::copy_from_slice(change.raw_bytes()));
        }
        Ok(chunks)
    }

    fn new(name: &str, mut doc: AutoCommit, changes: usize) -> Self {
        let mut heads = doc.get_heads();
        heads.sort_unstable();
        Self {
            name: name.to_owned(),
            saved: doc.save().into(),
            heads,
            changes,
            doc,
        }
    }

    /// Lets `writers` type `changes` each, all at once: none sees what the others type.
    pub fn script(&self, writers: usize, changes: usize) -> Result<Script> {
        let mut script = Script {
            changes: Vec::new(),
            places: HashMap::new(),
        };
        for writer in 0..writers {
            let mut doc = self.doc.clone().with_actor(actor(1, writer));
            let text = text_object(&doc)?;
            let mut typed = Vec::with_capacity(changes);
            for number in 0..changes {
                doc.splice_text(&text, number, 0, "x")?;
                let hash = doc.commit().context("a keystroke is a change")?;
                let change = doc
                    .get_last_local_change()
                    .context("a change just made is there")?;
                script.places.insert(hash, (writer, number));
                typed.push(Scripted {
                    hash,
                    bytes: change.raw_bytes().to_vec(),
                });
            }
            script.changes.push(typed);
        }
        Ok(script)
    }
}

/// The recorded paper, if it is at hand.
fn paper() -> Option<PathBuf> {
    let folder = std::env::var_os(TRACES_VARIABLE).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces"),
        PathBuf::from,
    );
    Some(folder.join(PAPER)).filter(|path| path.is_file())
}

fn empty() -> Result<(AutoCommit, ObjId)> {
    let mut doc =
        AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint).with_actor(actor(0, 0));
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    doc.commit();
    Ok((doc, text))
}

/// The text that all documents but the user have.
pub fn text_object(doc: &AutoCommit) -> Result<ObjId> {
    use automerge::ReadDoc as _;
    let (_, text) = doc.get(ROOT, "text")?.context("the document has no text")?;
    Ok(text)
}

/// An actor id of the length that clients make.
fn actor(kind: u8, number: usize) -> ActorId {
    let mut id = [kind; 16];
    for (byte, from) in id.iter_mut().zip(number.to_be_bytes()) {
        *byte = from.wrapping_mul(37).wrapping_add(kind);
    }
    ActorId::from(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::{Automerge, Change};

    #[test]
    fn scripts_apply_to_their_base() {
        let base = Base::typed(30).unwrap();
        let script = base.script(3, 4).unwrap();
        let mut doc = Automerge::load(&base.saved).unwrap();
        assert_eq!(doc.get_changes(&[]).len(), base.changes);
        let changes = script
            .changes
            .iter()
            .flatten()
            .map(|change| Change::from_bytes(change.bytes.clone()).unwrap());
        doc.apply_changes(changes).unwrap();
        assert_eq!(doc.get_heads().len(), 3);
        assert_eq!(doc.get_changes(&base.heads).len(), 12);
        for head in doc.get_heads() {
            assert_eq!(script.places.get(&head).map(|place| place.1), Some(3));
        }
    }

    #[test]
    fn the_user_document_is_of_the_promised_size() {
        let base = Base::user().unwrap();
        assert_eq!(
            Automerge::load(&base.saved).unwrap().get_changes(&[]).len(),
            base.changes
        );
        assert_eq!(base.changes, 56);
    }
}
