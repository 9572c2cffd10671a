//! A change taken apart, with nothing interpreted, and put together again.
//!
//! What [`ChangeModel::decode`] reads, [`ChangeModel::encode`] writes byte for byte; what a test
//! changes in between is written as Automerge would write it, with a good checksum, whatever sense
//! it makes.

use automerge::ChangeHash;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::columns::{
    boolean, deltas, prefixed, read_boolean, read_bytes, read_delta, read_prefixed, read_rle,
    read_sleb, read_uleb, rle, rle_or_absent, sleb, uleb,
};

/// Actions of ops.
pub mod action {
    /// Makes a map.
    pub const MAKE_MAP: u64 = 0;
    /// Sets a scalar.
    pub const SET: u64 = 1;
    /// Makes a list.
    pub const MAKE_LIST: u64 = 2;
    /// Deletes.
    pub const DELETE: u64 = 3;
    /// Makes a text.
    pub const MAKE_TEXT: u64 = 4;
    /// Adds to a counter.
    pub const INCREMENT: u64 = 5;
    /// Makes a table, which no released API does.
    pub const MAKE_TABLE: u64 = 6;
    /// Begins a mark, which then has a name, or ends one.
    pub const MARK: u64 = 7;
}

/// Specifications of the columns, in their order.
mod spec {
    pub(super) const OBJ_ACTOR: u64 = 0x01;
    pub(super) const OBJ_COUNTER: u64 = 0x02;
    pub(super) const KEY_ACTOR: u64 = 0x11;
    pub(super) const KEY_COUNTER: u64 = 0x13;
    pub(super) const KEY_TEXT: u64 = 0x15;
    pub(super) const INSERT: u64 = 0x34;
    pub(super) const ACTION: u64 = 0x42;
    pub(super) const VALUE_META: u64 = 0x56;
    pub(super) const VALUE: u64 = 0x57;
    pub(super) const PRED_COUNT: u64 = 0x70;
    pub(super) const PRED_ACTOR: u64 = 0x71;
    pub(super) const PRED_COUNTER: u64 = 0x73;
    pub(super) const EXPAND: u64 = 0x94;
    pub(super) const MARK_NAME: u64 = 0xa5;
}

/// A change. Actors within ops are indices: 0 the author, 1 the first of `other_actors`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeModel {
    /// Hashes of the changes that it was made on top of.
    pub deps: Vec<ChangeHash>,
    /// Its author.
    pub actor: Vec<u8>,
    /// Its number among its author's changes, from 1.
    pub seq: u64,
    /// Counter of its first op.
    pub start_op: u64,
    /// Milliseconds since 1970, as its author says.
    pub time: i64,
    /// UTF-8 where honest.
    pub message: Vec<u8>,
    /// Actors that its ops refer to.
    pub other_actors: Vec<Vec<u8>>,
    /// Its ops, with counters from `start_op`.
    pub ops: Vec<OpModel>,
    /// What comes after the columns.
    pub extra: Vec<u8>,
}

/// One op, a row of each column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpModel {
    /// The object's actor; none for the root.
    pub obj_actor: Option<u64>,
    /// The object's counter; none for the root.
    pub obj_counter: Option<u64>,
    /// The element's actor; none for the head of a sequence and for map keys.
    pub key_actor: Option<u64>,
    /// The element's counter; 0 for the head, none for map keys.
    pub key_counter: Option<i64>,
    /// The key in a map.
    pub key_text: Option<String>,
    /// Whether it makes a new element after the one it names.
    pub insert: bool,
    /// See [`action`].
    pub action: u64,
    /// Length of the value, then four bits of its type.
    pub value_meta: u64,
    /// The value's bytes, as many as `value_meta` says where honest.
    pub value: Vec<u8>,
    /// Actor and counter of the ops that it overwrites.
    pub preds: Vec<(u64, i64)>,
    /// Whether a mark grows at this end.
    pub expand: bool,
    /// The name of a mark that begins.
    pub mark_name: Option<String>,
}

impl OpModel {
    /// An op on a key of the root, or of the object.
    pub fn at_key(object: Option<(u64, u64)>, key: &str, action: u64) -> Self {
        Self {
            obj_actor: object.map(|(actor, _)| actor),
            obj_counter: object.map(|(_, counter)| counter),
            key_text: Some(key.to_owned()),
            action,
            ..Self::default()
        }
    }

    /// An op on an element of a sequence; none for the head.
    pub fn at_element(object: (u64, u64), element: Option<(u64, u64)>, action: u64) -> Self {
        Self {
            obj_actor: Some(object.0),
            obj_counter: Some(object.1),
            key_actor: element.map(|(actor, _)| actor),
            key_counter: Some(element.map_or(0, |(_, counter)| counter as i64)),
            action,
            ..Self::default()
        }
    }

    /// With this value: a type of 0 to 15 and its bytes.
    #[must_use]
    pub fn value(mut self, kind: u64, bytes: &[u8]) -> Self {
        self.value_meta = (bytes.len() as u64) << 4 | kind;
        self.value = bytes.to_vec();
        self
    }

    /// Making a new element.
    #[must_use]
    pub fn inserting(mut self) -> Self {
        self.insert = true;
        self
    }

    /// Overwriting these.
    #[must_use]
    pub fn over(mut self, preds: &[(u64, i64)]) -> Self {
        self.preds = preds.to_vec();
        self
    }
}

impl ChangeModel {
    /// Takes apart an uncompressed change chunk. Panics on what Automerge does not write.
    pub fn decode(chunk: &[u8]) -> Self {
        let mut rest = chunk.get(8..).expect("magic and checksum");
        assert_eq!(read_bytes(&mut rest, 1), [1], "an uncompressed change");
        let length = read_uleb(&mut rest);
        assert_eq!(length, rest.len() as u64, "one chunk");
        let deps = (0..read_uleb(&mut rest))
            .map(|_| ChangeHash(read_bytes(&mut rest, 32).try_into().expect("32 bytes")))
            .collect();
        let actor = read_prefixed(&mut rest);
        let seq = read_uleb(&mut rest);
        let start_op = read_uleb(&mut rest);
        let time = read_sleb(&mut rest);
        let message = read_prefixed(&mut rest);
        let others = read_uleb(&mut rest);
        let other_actors = (0..others).map(|_| read_prefixed(&mut rest)).collect();
        let columns = read_uleb(&mut rest);
        let table: Vec<_> = (0..columns)
            .map(|_| (read_uleb(&mut rest), read_uleb(&mut rest)))
            .collect();
        let columns: Vec<_> = table
            .into_iter()
            .map(|(spec, length)| (spec, read_bytes(&mut rest, length as usize)))
            .collect();
        Self {
            deps,
            actor,
            seq,
            start_op,
            time,
            message,
            other_actors,
            ops: ops(&columns),
            extra: rest.to_vec(),
        }
    }

    /// The chunk, with a good checksum.
    pub fn encode(&self) -> Bytes {
        self.encode_with(&self.columns())
    }

    /// The chunk with these columns, specification and bytes, in place of its ops'.
    pub fn encode_with(&self, columns: &[(u64, Vec<u8>)]) -> Bytes {
        let mut data = Vec::new();
        uleb(&mut data, self.deps.len() as u64);
        for dep in &self.deps {
            data.extend_from_slice(&dep.0);
        }
        prefixed(&mut data, &self.actor);
        uleb(&mut data, self.seq);
        uleb(&mut data, self.start_op);
        sleb(&mut data, self.time);
        prefixed(&mut data, &self.message);
        uleb(&mut data, self.other_actors.len() as u64);
        for actor in &self.other_actors {
            prefixed(&mut data, actor);
        }
        uleb(&mut data, columns.len() as u64);
        for (spec, bytes) in columns {
            uleb(&mut data, *spec);
            uleb(&mut data, bytes.len() as u64);
        }
        for (_, bytes) in columns {
            data.extend_from_slice(bytes);
        }
        data.extend_from_slice(&self.extra);
        framed(&data)
    }

    /// The columns of its ops, those that are not empty: specification and bytes.
    pub fn columns(&self) -> Vec<(u64, Vec<u8>)> {
        let ops = || self.ops.iter();
        let preds = || ops().flat_map(|op| &op.preds);
        let mut columns = vec![
            (spec::OBJ_ACTOR, rle_or_absent(ops().map(|op| op.obj_actor))),
            (
                spec::OBJ_COUNTER,
                rle_or_absent(ops().map(|op| op.obj_counter)),
            ),
            (spec::KEY_ACTOR, rle_or_absent(ops().map(|op| op.key_actor))),
            (
                spec::KEY_COUNTER,
                rle_or_absent(deltas(ops().map(|op| op.key_counter))),
            ),
            (
                spec::KEY_TEXT,
                rle_or_absent(ops().map(|op| op.key_text.clone())),
            ),
            (spec::INSERT, boolean(ops().map(|op| op.insert))),
            (spec::ACTION, rle(ops().map(|op| Some(op.action)))),
            (spec::VALUE_META, rle(ops().map(|op| Some(op.value_meta)))),
            (
                spec::VALUE,
                ops().flat_map(|op| op.value.iter().copied()).collect(),
            ),
            (
                spec::PRED_COUNT,
                rle(ops().map(|op| Some(op.preds.len() as u64))),
            ),
            (spec::PRED_ACTOR, rle(preds().map(|pred| Some(pred.0)))),
            (
                spec::PRED_COUNTER,
                rle(deltas(preds().map(|pred| Some(pred.1)))),
            ),
            (spec::EXPAND, Vec::new()),
            (
                spec::MARK_NAME,
                rle_or_absent(ops().map(|op| op.mark_name.clone())),
            ),
        ];
        if ops().any(|op| op.expand) {
            columns[12].1 = boolean(ops().map(|op| op.expand));
        }
        columns.retain(|(_, bytes)| !bytes.is_empty());
        columns
    }

    /// The hash of its chunk.
    pub fn hash(&self) -> ChangeHash {
        hash(&self.encode())
    }

    /// The counter after its last op's.
    pub fn end_op(&self) -> u64 {
        self.start_op.saturating_add(self.ops.len() as u64)
    }

    /// The index by which its ops name this actor, which is added if it is not there; the indices
    /// that stand in the ops stay right.
    pub fn actor_index(&mut self, actor: &[u8]) -> u64 {
        if actor == self.actor {
            return 0;
        }
        if let Some(at) = self.other_actors.iter().position(|other| other == actor) {
            return at as u64 + 1;
        }
        let sorted = |other: &Vec<u8>| other.as_slice() < actor;
        let at = self.other_actors.partition_point(sorted);
        self.other_actors.insert(at, actor.to_vec());
        let index = at as u64 + 1;
        self.map_actors(|old| {
            if old >= index {
                old.saturating_add(1)
            } else {
                old
            }
        });
        index
    }

    /// Drops the actors that no op names any more, as Automerge would not have written them.
    pub fn drop_unused_actors(&mut self) {
        let mut at = self.other_actors.len() as u64;
        while at > 0 {
            let mut used = false;
            self.map_actors(|index| {
                used |= index == at;
                index
            });
            if !used {
                self.other_actors.remove(at as usize - 1);
                self.map_actors(|index| if index > at { index - 1 } else { index });
            }
            at -= 1;
        }
    }

    /// The actor of this index.
    pub fn actor_at(&self, index: u64) -> Option<&[u8]> {
        match index {
            0 => Some(&self.actor),
            _ => self.other_actors.get(index as usize - 1).map(Vec::as_slice),
        }
    }

    fn map_actors(&mut self, mut map: impl FnMut(u64) -> u64) {
        for op in &mut self.ops {
            op.obj_actor = op.obj_actor.map(&mut map);
            op.key_actor = op.key_actor.map(&mut map);
            for (actor, _) in &mut op.preds {
                *actor = map(*actor);
            }
        }
    }
}

/// A change chunk around the data, its checksum right.
pub fn framed(data: &[u8]) -> Bytes {
    let mut hashed = vec![1];
    prefixed(&mut hashed, data);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&Sha256::digest(&hashed)[..4]);
    chunk.extend_from_slice(&hashed);
    chunk.into()
}

/// The hash of a change chunk.
pub fn hash(chunk: &[u8]) -> ChangeHash {
    ChangeHash(Sha256::digest(&chunk[8..]).into())
}

fn ops(columns: &[(u64, &[u8])]) -> Vec<OpModel> {
    let column = |spec| {
        let found = columns.iter().find(|(found, _)| *found == spec);
        found.map_or(&[][..], |(_, bytes)| bytes)
    };
    let actions = read_rle::<u64>(column(spec::ACTION));
    let obj_actor = read_rle::<u64>(column(spec::OBJ_ACTOR));
    let obj_counter = read_rle::<u64>(column(spec::OBJ_COUNTER));
    let key_actor = read_rle::<u64>(column(spec::KEY_ACTOR));
    let key_counter = read_delta(column(spec::KEY_COUNTER));
    let key_text = read_rle::<String>(column(spec::KEY_TEXT));
    let insert = read_boolean(column(spec::INSERT));
    let value_meta = read_rle::<u64>(column(spec::VALUE_META));
    let mut value = column(spec::VALUE);
    let pred_count = read_rle::<u64>(column(spec::PRED_COUNT));
    let pred_actor = read_rle::<u64>(column(spec::PRED_ACTOR));
    let pred_counter = read_delta(column(spec::PRED_COUNTER));
    let mut preds = pred_actor.into_iter().zip(pred_counter);
    let expand = read_boolean(column(spec::EXPAND));
    let mark_name = read_rle::<String>(column(spec::MARK_NAME));
    let op = |(row, action): (usize, Option<u64>)| {
        let value_meta = value_meta[row].expect("a value");
        let preds = preds
            .by_ref()
            .take(pred_count[row].expect("a count") as usize);
        OpModel {
            obj_actor: obj_actor.get(row).copied().flatten(),
            obj_counter: obj_counter.get(row).copied().flatten(),
            key_actor: key_actor.get(row).copied().flatten(),
            key_counter: key_counter.get(row).copied().flatten(),
            key_text: key_text.get(row).cloned().flatten(),
            insert: insert[row],
            action: action.expect("an action"),
            value_meta,
            value: read_bytes(&mut value, (value_meta >> 4) as usize).to_vec(),
            preds: preds
                .map(|(actor, counter)| (actor.expect("an actor"), counter.expect("a counter")))
                .collect(),
            expand: expand.get(row).copied().unwrap_or(false),
            mark_name: mark_name.get(row).cloned().flatten(),
        }
    };
    actions.into_iter().enumerate().map(op).collect()
}
