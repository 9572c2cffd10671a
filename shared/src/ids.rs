//! Identifiers: opaque, bounded text behind an `Arc`, so that a clone is a reference count.
//!
//! Peers choose these, so nothing is relied on but their length and that they have no control characters. A document id is normally the
//! base58check of a UUID (Bitcoin alphabet, four checksum bytes), but stock clients accept any
//! payload and legacy UUID text, so the server treats it as opaque too.

use std::fmt;
use std::sync::Arc;

use crate::{ErrorCode, base58check};

/// Longest document id in bytes: base58check of a UUID takes 28, legacy UUID text 36.
pub const DOCUMENT_ID_BYTES: usize = 64;
/// Longest peer, storage, session and principal id in bytes.
pub const ID_BYTES: usize = 256;

const URL_SCHEME: &str = "automerge:";

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// An id has at least one byte.
    #[error("the {kind} is empty")]
    Empty {
        /// Which kind of id.
        kind: &'static str,
    },
    /// Longer than the kind allows.
    #[error("the {kind} has {bytes} bytes, more than {limit}")]
    TooLong {
        /// Which kind of id.
        kind: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// An id with a line break or an escape sequence would write what it likes into logs and terminals.
    #[error("the {kind} has the control character {found:?}")]
    ControlCharacter {
        /// Which kind of id.
        kind: &'static str,
        /// The first of them.
        found: char,
    },
    /// A document URL that names heads (`automerge:ID#HEADS`) is a version, not a document.
    #[error("the document URL names heads, which have no meaning here")]
    UrlWithHeads,
}

impl IdError {
    /// What a peer is told.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::BadId
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks that `text` is not empty, within the length bound and without control characters.
            pub fn new(text: &str) -> Result<Self, IdError> {
                check($kind, text, $limit)?;
                Ok(Self(text.into()))
            }

            /// The id as text, as it goes on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn check(kind: &'static str, text: &str, limit: usize) -> Result<(), IdError> {
    match text.len() {
        0 => return Err(IdError::Empty { kind }),
        bytes if bytes > limit => return Err(IdError::TooLong { kind, bytes, limit }),
        _ => {}
    }
    match text.chars().find(|c| c.is_control()) {
        Some(found) => Err(IdError::ControlCharacter { kind, found }),
        None => Ok(()),
    }
}

id! {
    /// Names a document for as long as it lives.
    DocumentId, "document id", DOCUMENT_ID_BYTES
}
id! {
    /// Names one end of a connection. A client makes a new one for each tab.
    PeerId, "peer id", ID_BYTES
}
id! {
    /// Names a store that outlives connections: what remote heads are reported for.
    StorageId, "storage id", ID_BYTES
}
id! {
    /// Names one run of ephemeral messages of one author.
    SessionId, "session id", ID_BYTES
}
id! {
    /// Names whoever is behind a connection, as authentication found it.
    PrincipalId, "principal id", ID_BYTES
}

impl PrincipalId {
    /// Whoever asks, where nobody has to say who they are.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }
}

impl DocumentId {
    /// The id that automerge-repo gives a document with this UUID: its base58check.
    pub fn from_uuid(uuid: [u8; 16]) -> Self {
        Self(base58check::encode(&uuid).into())
    }

    /// Reads `automerge:ID` or a bare `ID`.
    pub fn parse_url(text: &str) -> Result<Self, IdError> {
        let id = text.strip_prefix(URL_SCHEME).unwrap_or(text);
        if id.contains('#') {
            return Err(IdError::UrlWithHeads);
        }
        Self::new(id)
    }

    /// The document's URL as clients write it: `automerge:ID`.
    pub fn url(&self) -> String {
        format!("{URL_SCHEME}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors come from npm `@automerge/automerge-repo` 2.5.6.
    #[test]
    fn uuid_becomes_the_id_that_javascript_gives_it() {
        let id = |hex: &str| DocumentId::from_uuid(hex::decode(hex).unwrap().try_into().unwrap());
        assert_eq!(
            id("00112233445566778899aabbccddeeff").as_str(),
            "148vjpuxYXixb8DcbaWyeGv2q3u"
        );
        assert_eq!(
            id("f1c29c8474c84adeb800be47627d33bf").as_str(),
            "4NMNnkMhL8jXrdJ9jamS58PAVdXu"
        );
    }

    #[test]
    fn urls_and_bare_ids_name_the_same_document() {
        let bare = DocumentId::parse_url("4NMNnkMhL8jXrdJ9jamS58PAVdXu").unwrap();
        assert_eq!(DocumentId::parse_url(&bare.url()).unwrap(), bare);
        assert_eq!(
            DocumentId::parse_url("automerge:abc#def"),
            Err(IdError::UrlWithHeads)
        );
        assert!(matches!(
            DocumentId::parse_url("automerge:"),
            Err(IdError::Empty { .. })
        ));
    }

    #[test]
    fn length_is_bounded_on_both_sides() {
        assert!(PeerId::new(&"p".repeat(ID_BYTES)).is_ok());
        assert_eq!(
            PeerId::new(&"p".repeat(ID_BYTES + 1)),
            Err(IdError::TooLong {
                kind: "peer id",
                bytes: 257,
                limit: 256
            })
        );
        assert!(DocumentId::new(&"d".repeat(DOCUMENT_ID_BYTES)).is_ok());
        assert!(DocumentId::new(&"d".repeat(DOCUMENT_ID_BYTES + 1)).is_err());
        assert!(StorageId::new("").is_err());
    }

    #[test]
    fn ids_can_not_write_to_a_terminal() {
        for text in ["a\nb", "\u{1b}[2J", "a\u{9b}", "\0"] {
            let refused = DocumentId::new(text);
            let is_named = matches!(refused, Err(IdError::ControlCharacter { .. }));
            assert!(is_named, "{text:?}: {refused:?}");
        }
        assert!(DocumentId::new("Größe 😀").is_ok());
    }
}
