//! One document: [`crate::Replica`].

use std::cell::{Cell, RefCell, RefMut};

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, ChangeHash, Cursor, ObjId, ReadDoc as _};
use concord_shared::ids::{DocumentId, PeerId};
use js_sys::{Array, Uint8Array};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use super::convert::{
    hash_of, heads, heads_of, index_number, number, object, prop_of, scalar_of, type_name, type_of,
    value,
};
use super::error::Thrown;
use super::patch::patches;
use crate::replica::intake::server_limits;
use crate::{Open, Replica as Inner, UndoStack};

/// See `WasmReplica` in `wasm.ts`.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Replica {
    inner: RefCell<Inner>,
    /// Whether there are edits that were not committed: all but edits and reads would commit them.
    editing: Cell<bool>,
    steps: RefCell<UndoStack>,
}

type Done = Result<(), Thrown>;

thread_local! {
    /// The one that whoever has a copy of this memory goes on with.
    static PARKED: RefCell<Option<Replica>> = const { RefCell::new(None) };
}

#[wasm_bindgen]
impl Replica {
    /// Leaves the replica in the module's memory, of which another instance is then given a copy.
    pub fn park(self) {
        PARKED.set(Some(self));
    }

    /// The replica that was parked in the memory that this instance was given.
    pub fn parked() -> Option<Self> {
        PARKED.take()
    }

    /// An empty document.
    #[wasm_bindgen(constructor)]
    pub fn new(document: &str) -> Result<Self, Thrown> {
        let document = DocumentId::new(document).map_err(Thrown::of)?;
        Ok(Self {
            inner: RefCell::new(Inner::new(document, ActorId::random())),
            editing: Cell::new(false),
            steps: RefCell::default(),
        })
    }

    /// A value in a map, list or text.
    pub fn get(&self, of: &str, at: &JsValue) -> Result<JsValue, Thrown> {
        let at = prop_of(at)?;
        self.read(of, |doc, of| {
            let found = doc.get(of, at).map_err(Thrown::of)?;
            Ok(found.map_or(JsValue::UNDEFINED, |(found, id)| value(&found, &id)))
        })
    }

    /// The keys of a map.
    pub fn keys(&self, of: &str) -> Result<Vec<String>, Thrown> {
        self.read(of, |doc, of| Ok(doc.keys(of).collect()))
    }

    /// Elements, code units or keys.
    pub fn length(&self, of: &str) -> Result<JsValue, Thrown> {
        self.read(of, |doc, of| Ok(index_number(doc.length(of))))
    }

    /// The whole of a text.
    pub fn text(&self, of: &str) -> Result<String, Thrown> {
        self.read(of, |doc, of| doc.text(of).map_err(Thrown::of))
    }

    /// Whether a position in a text is between the halves of a surrogate pair.
    #[wasm_bindgen(js_name = splitsPair)]
    pub fn splits_pair(&self, of: &str, index: usize) -> Result<bool, Thrown> {
        self.read(of, |doc, of| {
            if index >= doc.length(of) {
                return Ok(false);
            }
            let cursor = doc.get_cursor(of, index, None).map_err(Thrown::of)?;
            let begins = doc.get_cursor_position(of, &cursor, None);
            Ok(begins.map_err(Thrown::of)? != index)
        })
    }

    /// `"map"`, `"list"` or `"text"`.
    #[wasm_bindgen(js_name = typeOf)]
    pub fn type_of(&self, of: &str) -> Result<String, Thrown> {
        self.read(of, |doc, of| {
            let kind = doc.object_type(of).map_err(Thrown::of)?;
            Ok(type_name(kind).to_owned())
        })
    }

    /// Writes a scalar.
    pub fn put(&self, of: &str, at: &JsValue, value: &JsValue) -> Done {
        let (at, scalar) = (prop_of(at)?, scalar_of(value)?);
        self.edit(of, |doc, of| doc.put(of, at, scalar))
    }

    /// Inserts a scalar before `index`.
    pub fn insert(&self, of: &str, index: usize, value: &JsValue) -> Done {
        let scalar = scalar_of(value)?;
        self.edit(of, |doc, of| doc.insert(of, index, scalar))
    }

    /// Makes an object; its id.
    #[wasm_bindgen(js_name = putObject)]
    pub fn put_object(&self, of: &str, at: &JsValue, kind: &str) -> Result<String, Thrown> {
        let (at, kind) = (prop_of(at)?, type_of(kind)?);
        let made = self.edit(of, |doc, of| doc.put_object(of, at, kind))?;
        Ok(made.to_string())
    }

    /// Inserts an object before `index`; its id.
    #[wasm_bindgen(js_name = insertObject)]
    pub fn insert_object(&self, of: &str, index: usize, kind: &str) -> Result<String, Thrown> {
        let kind = type_of(kind)?;
        let made = self.edit(of, |doc, of| doc.insert_object(of, index, kind))?;
        Ok(made.to_string())
    }

    /// Deletes a key or an element.
    pub fn remove(&self, of: &str, at: &JsValue) -> Done {
        let at = prop_of(at)?;
        self.edit(of, |doc, of| doc.delete(of, at))
    }

    /// Adds to a counter.
    pub fn increment(&self, of: &str, at: &JsValue, by: f64) -> Done {
        let at = prop_of(at)?;
        let by = super::convert::integer(by)
            .ok_or_else(|| Thrown::new("bad-value", "counters count in whole numbers"))?;
        self.edit(of, |doc, of| doc.increment(of, at, by))
    }

    /// Positions in UTF-16 code units.
    #[wasm_bindgen(js_name = spliceText)]
    pub fn splice_text(&self, of: &str, index: usize, remove: usize, insert: &str) -> Done {
        let remove = isize::try_from(remove).unwrap_or(isize::MAX);
        self.edit(of, |doc, of| doc.splice_text(of, index, remove, insert))
    }

    /// Makes a text read so, with the fewest edits.
    #[wasm_bindgen(js_name = updateText)]
    pub fn update_text(&self, of: &str, text: &str) -> Done {
        self.edit(of, |doc, of| doc.update_text(of, text))
    }

    /// Ends the transaction; the change and its hash, or nothing.
    pub fn commit(&self, message: Option<String>, time_ms: f64) -> Result<JsValue, Thrown> {
        self.editing.set(false);
        let mut inner = self.inner.borrow_mut();
        let doc = inner.doc();
        if doc.pending_ops() == 0 {
            doc.rollback();
            return Ok(JsValue::UNDEFINED);
        }
        let Some(hash) = doc.commit_with(options(message, time_ms)) else {
            return Ok(JsValue::UNDEFINED);
        };
        change_chunk(doc, &hash)
    }

    /// Ends the transaction; nothing of it stays.
    pub fn rollback(&self) {
        self.editing.set(false);
        self.inner.borrow_mut().doc().rollback();
    }

    /// An own change is a step to undo, or part of the last one.
    pub fn record(&self, hash: &str, continues: bool) -> Done {
        self.steps.borrow_mut().record(hash_of(hash)?, continues);
        Ok(())
    }

    /// Whether there is a step to undo.
    #[wasm_bindgen(js_name = canUndo)]
    pub fn can_undo(&self) -> bool {
        self.steps.borrow().can_undo()
    }

    /// Whether there is a step to redo.
    #[wasm_bindgen(js_name = canRedo)]
    pub fn can_redo(&self) -> bool {
        self.steps.borrow().can_redo()
    }

    /// Takes back what is left of the last step; the change that did and its hash, or nothing.
    pub fn undo(&self, message: Option<String>, time_ms: f64) -> Result<JsValue, Thrown> {
        let mut steps = self.steps.borrow_mut();
        let step = steps.next_undo().map(<[_]>::to_vec);
        let made = self.take_back(step, message, time_ms)?;
        steps.undone(made);
        self.made(made)
    }

    /// Takes back the last undo.
    pub fn redo(&self, message: Option<String>, time_ms: f64) -> Result<JsValue, Thrown> {
        let mut steps = self.steps.borrow_mut();
        let step = steps.next_redo().map(<[_]>::to_vec);
        let made = self.take_back(step, message, time_ms)?;
        steps.redone(made);
        self.made(made)
    }

    /// A change without edits.
    #[wasm_bindgen(js_name = emptyChange)]
    pub fn empty_change(&self, time_ms: f64) -> Result<JsValue, Thrown> {
        let mut inner = self.settled()?;
        let hash = inner.doc().empty_change(options(None, time_ms));
        change_chunk(inner.doc(), &hash)
    }

    /// Changes that do not come from the server.
    pub fn apply(&self, chunks: &[u8]) -> Done {
        self.settled()?.apply_chunks(chunks).map_err(Thrown::of)
    }

    /// What happened since the last call.
    pub fn patches(&self) -> Result<JsValue, Thrown> {
        Ok(patches(&self.settled()?.doc().diff_incremental()))
    }

    /// The version.
    pub fn heads(&self) -> Result<JsValue, Thrown> {
        Ok(heads(&self.settled()?.heads()))
    }

    /// Whether the change is in the document.
    pub fn has(&self, hash: &str) -> Result<bool, Thrown> {
        let hash = hash_of(hash)?;
        let mut inner = self.settled()?;
        Ok(inner.doc().get_change_meta_by_hash(&hash).is_some())
    }

    /// Chunks of the changes that are not below `have`.
    #[wasm_bindgen(js_name = changesSince)]
    pub fn changes_since(&self, have: Vec<String>) -> Result<JsValue, Thrown> {
        let have = heads_of(&have)?;
        let mut inner = self.settled()?;
        let changes = inner.doc().get_changes(&have);
        let chunks = changes.iter();
        let chunks = chunks.map(|change| chunk(&change.hash().to_string(), change.raw_bytes()));
        Ok(chunks.collect::<Array>().into())
    }

    /// How many changes are not below `have`.
    #[wasm_bindgen(js_name = countSince)]
    pub fn count_since(&self, have: Vec<String>) -> Result<JsValue, Thrown> {
        let have = heads_of(&have)?;
        let mut inner = self.settled()?;
        if have.is_empty() {
            return Ok(number(inner.doc().stats().num_changes));
        }
        Ok(index_number(inner.doc().get_changes_meta(&have).len()))
    }

    /// Hashes of the changes that are not below `have`.
    #[wasm_bindgen(js_name = hashesSince)]
    pub fn hashes_since(&self, have: Vec<String>) -> Result<Vec<String>, Thrown> {
        let have = heads_of(&have)?;
        let mut inner = self.settled()?;
        let changes = inner.doc().get_changes_meta(&have);
        Ok(changes.iter().map(|one| one.hash.to_string()).collect())
    }

    /// The whole document, compact.
    pub fn save(&self) -> Result<Uint8Array, Thrown> {
        Ok(Uint8Array::from(&*self.settled()?.save()))
    }

    /// What is known of each change.
    pub fn history(&self) -> Result<JsValue, Thrown> {
        let mut inner = self.settled()?;
        let changes = inner.doc().get_changes_meta(&[]);
        let infos = changes.iter().map(|change| {
            #[expect(clippy::cast_precision_loss, reason = "what JavaScript can hold")]
            let time = change.timestamp as f64;
            let ops = (change.max_op + 1).saturating_sub(change.start_op);
            object(&[
                ("hash", change.hash.to_string().into()),
                ("actor", change.actor.to_hex_string().into()),
                ("seq", number(change.seq)),
                ("time", JsValue::from_f64(time)),
                ("message", change.message.as_deref().into()),
                ("ops", number(ops)),
                ("deps", heads(&change.deps)),
            ])
        });
        Ok(infos.collect::<Array>().into())
    }

    /// The steps from one version to another.
    pub fn diff(&self, before: Vec<String>, after: Vec<String>) -> Result<JsValue, Thrown> {
        let (before, after) = (heads_of(&before)?, heads_of(&after)?);
        Ok(patches(&self.settled()?.doc().diff(&before, &after)))
    }

    /// All values that were written at the same time; the winner last.
    pub fn conflicts(&self, of: &str, at: &JsValue) -> Result<JsValue, Thrown> {
        let at = prop_of(at)?;
        self.read(of, |doc, of| {
            let all = doc.get_all(of, at).map_err(Thrown::of)?;
            let all = all.iter().map(|(found, id)| value(found, id));
            Ok(all.collect::<Array>().into())
        })
    }

    /// A place that moves with what is around it.
    pub fn cursor(&self, of: &str, index: usize) -> Result<String, Thrown> {
        self.read(of, |doc, of| {
            let cursor = doc.get_cursor(of, index, None).map_err(Thrown::of)?;
            Ok(cursor.to_string())
        })
    }

    /// Where the place is now.
    #[wasm_bindgen(js_name = cursorPosition)]
    pub fn cursor_position(&self, of: &str, cursor: &str) -> Result<JsValue, Thrown> {
        let cursor = Cursor::try_from(cursor).map_err(Thrown::of)?;
        self.read(of, |doc, of| {
            let position = doc.get_cursor_position(of, &cursor, None);
            Ok(position.map_or(JsValue::UNDEFINED, index_number))
        })
    }

    /// A session begins.
    pub fn connect(&self) -> Done {
        self.settled()?.connect();
        Ok(())
    }

    /// The session is over.
    pub fn disconnect(&self) -> Done {
        self.settled()?.disconnect();
        Ok(())
    }

    /// What to send, from whom to whom: the connection may be in another instance of the module.
    #[wasm_bindgen(js_name = nextFrame)]
    pub fn next_frame(&self, us: &str, server: &str) -> Result<JsValue, Thrown> {
        let peer = |name| PeerId::new(name).map_err(Thrown::of);
        let open = Open::between(peer(us)?, peer(server)?);
        let frame = self.settled()?.next_frame(&open);
        Ok(frame.map_or(JsValue::UNDEFINED, |frame| Uint8Array::from(&*frame).into()))
    }

    /// A sync message of the server's.
    pub fn receive(&self, data: &[u8]) -> Done {
        let mut inner = self.settled()?;
        let taken = inner.receive(data, &server_limits());
        taken.map_err(Thrown::of)
    }

    /// What a sync message says besides its changes, if they come as a snapshot.
    #[wasm_bindgen(js_name = withoutSnapshot)]
    pub fn without_snapshot(data: &[u8]) -> Option<Vec<u8>> {
        Inner::without_snapshot(data, &server_limits())
    }

    /// Changes that were read elsewhere, of a message of which the rest comes later.
    #[wasm_bindgen(js_name = receivePart)]
    pub fn receive_part(&self, changes: &[u8]) -> Done {
        self.settled()?.receive_part(changes).map_err(Thrown::of)
    }

    /// Whether changes wait to be applied.
    #[wasm_bindgen(js_name = hasPending)]
    pub fn has_pending(&self) -> bool {
        self.inner.borrow().has_pending()
    }

    /// Applies what was received, or the first of it where that is more bytes than `most`.
    #[wasm_bindgen(js_name = applyPending)]
    pub fn apply_pending(&self, most: usize) -> Done {
        let applied = self.settled()?.apply_some_pending(most);
        applied.map_err(Thrown::of)
    }

    /// What the server is known to keep.
    #[wasm_bindgen(js_name = syncedHeads)]
    pub fn synced_heads(&self) -> JsValue {
        heads(&self.inner.borrow().shared_heads())
    }

    /// Whether the server takes no changes from us.
    #[wasm_bindgen(js_name = isReadOnly)]
    pub fn is_read_only(&self) -> bool {
        self.inner.borrow().is_read_only()
    }

    /// To be kept beside the document.
    #[wasm_bindgen(js_name = syncState)]
    pub fn sync_state(&self) -> Vec<u8> {
        self.inner.borrow().sync_state()
    }

    /// What was kept.
    #[wasm_bindgen(js_name = restoreSyncState)]
    pub fn restore_sync_state(&self, state: &[u8]) {
        self.inner.borrow_mut().restore_sync_state(state);
    }
}

impl Replica {
    fn take_back(
        &self,
        step: Option<Vec<ChangeHash>>,
        message: Option<String>,
        time_ms: f64,
    ) -> Result<Option<ChangeHash>, Thrown> {
        let Some(step) = step else {
            return Ok(None);
        };
        let mut inner = self.settled()?;
        let made = inner.undo(&step, options(message, time_ms));
        made.map_err(Thrown::of)
    }

    fn made(&self, hash: Option<ChangeHash>) -> Result<JsValue, Thrown> {
        match hash {
            Some(hash) => change_chunk(self.inner.borrow_mut().doc(), &hash),
            None => Ok(JsValue::UNDEFINED),
        }
    }

    /// The document, when no transaction is open.
    fn settled(&self) -> Result<RefMut<'_, Inner>, Thrown> {
        if self.editing.get() {
            return Err(Thrown::new("in-change", "not while a change is being made"));
        }
        Ok(self.inner.borrow_mut())
    }

    fn read<T>(
        &self,
        of: &str,
        read: impl FnOnce(&AutoCommit, &ObjId) -> Result<T, Thrown>,
    ) -> Result<T, Thrown> {
        let mut inner = self.inner.borrow_mut();
        let doc = inner.doc();
        let of = object_id(doc, of)?;
        read(doc, &of)
    }

    fn edit<T>(
        &self,
        of: &str,
        edit: impl FnOnce(&mut AutoCommit, &ObjId) -> Result<T, automerge::AutomergeError>,
    ) -> Result<T, Thrown> {
        let mut inner = self.inner.borrow_mut();
        let doc = inner.doc();
        let of = object_id(doc, of)?;
        self.editing.set(true);
        edit(doc, &of).map_err(Thrown::of)
    }
}

fn options(message: Option<String>, time_ms: f64) -> CommitOptions {
    CommitOptions {
        message,
        time: super::convert::integer(time_ms),
    }
}

/// Automerge panics on what is no hex.
fn object_id(doc: &AutoCommit, text: &str) -> Result<ObjId, Thrown> {
    let (_, actor) = text.split_once('@').unwrap_or_default();
    if !actor.len().is_multiple_of(2) || !actor.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Thrown::new("bad-id", format!("{text:?} is no object id")));
    }
    doc.import_obj(text).map_err(Thrown::of)
}

fn chunk(hash: &str, bytes: &[u8]) -> JsValue {
    object(&[
        ("hash", hash.into()),
        ("bytes", Uint8Array::from(bytes).into()),
    ])
}

fn change_chunk(doc: &mut AutoCommit, hash: &ChangeHash) -> Result<JsValue, Thrown> {
    let change = doc
        .get_change_by_hash(hash)
        .ok_or_else(|| Thrown::new("automerge", "the change that was made is not there"))?;
    Ok(chunk(&hash.to_string(), change.raw_bytes()))
}
