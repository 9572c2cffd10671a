//! The value of an op: a type in four bits, and bytes that Automerge writes in one way only.

use super::op_error::OpError;
use crate::reader::{ReadError, Reader};

/// What a value is, as far as it matters to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    /// A signed or unsigned integer.
    Integer,
    Counter,
    Other,
}

/// Reads a value of this type and holds it against how Automerge writes it: it is read and written again
/// when a document is saved and loaded, and a hash depends on its bytes.
pub(super) fn kind(of: u64, bytes: &Reader<'_>) -> Result<Kind, OpError> {
    const WHAT: &str = "value";
    let all = |read: fn(&mut Reader<'_>) -> Result<(), ReadError>| {
        let mut bytes = bytes.clone();
        read(&mut bytes).and_then(|()| bytes.finish(WHAT))
    };
    let kind = match of {
        0 => Kind::Null,
        3 | 4 => Kind::Integer,
        8 => Kind::Counter,
        _ => Kind::Other,
    };
    let read = match of {
        // Null, false, true.
        0..=2 => all(|_| Ok(())),
        3 => all(|bytes| bytes.uleb(WHAT).map(drop)),
        // An integer, a counter, a timestamp.
        4 | 8 | 9 => all(|bytes| bytes.sleb(WHAT).map(drop)),
        5 => all(|bytes| bytes.array::<8>(WHAT).map(drop)),
        6 => all(|bytes| {
            let offset = bytes.offset();
            let text = std::str::from_utf8(bytes.take_rest());
            text.map(drop)
                .map_err(|_| ReadError::NotUtf8 { what: WHAT, offset })
        }),
        7 => Ok(()),
        _ => return Err(OpError::UnknownValueType(of)),
    };
    read.map_err(|_| OpError::BadValue(of)).map(|()| kind)
}
