//! Which requests were carried out: their changes say so.
//!
//! A client that does not know whether its request was carried out sends it again, under the same key. So each change of
//! such a request names the key in its message: it is durable with the change, and found after a restart, too. A table
//! beside the document would have to be written with each change, and would still forget.

use automerge::{Automerge, ChangeHash};
use rustc_hash::FxHashMap;

/// By what a request is known when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A key that its author gave it, for this one request. Should somebody write the same message again, the first one
    /// counts.
    Key,
    /// Its address and the version that it goes on from. Others may have both: the last one counts, so that only what came
    /// in between from elsewhere is passed over.
    Version,
}

impl By {
    /// What the messages begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Key => "idempotency-key:",
            Self::Version => "if-match:",
        }
    }
}

/// A request that is not carried out again. Both numbers are hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// What `key` is.
    pub by: By,
    /// By which it is known.
    pub key: u128,
    /// What it asks.
    pub request: u128,
}

impl Mark {
    /// Reads what [`Display`](std::fmt::Display) writes.
    pub fn parse(message: &str) -> Option<Self> {
        let parted = |by: By| Some((by, message.strip_prefix(by.prefix())?));
        let (by, numbers) = parted(By::Key).or_else(|| parted(By::Version))?;
        let (key, request) = numbers.split_once(':')?;
        let number = |text: &str| {
            let is_whole = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u128::from_str_radix(text, 16).ok().filter(|_| is_whole)
        };
        Some(Self {
            by,
            key: number(key)?,
            request: number(request)?,
        })
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { by, key, request } = self;
        write!(f, "{}{key:032x}:{request:032x}", by.prefix())
    }
}

/// A request with the same key was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// What it asked.
    pub request: u128,
    /// Its change.
    pub change: ChangeHash,
}

/// Those of one document, by their keys.
#[derive(Debug, Default)]
pub(super) struct Marks(FxHashMap<u128, Done>);

impl Marks {
    /// Reads the messages of all changes: some tens of milliseconds for a quarter of a million.
    pub(super) fn of(doc: &Automerge) -> Self {
        let mut marks = Self::default();
        for change in doc.get_changes_meta(&[]) {
            if let Some(mark) = change.message.as_deref().and_then(Mark::parse) {
                marks.insert(mark, change.hash);
            }
        }
        marks
    }

    pub(super) fn insert(&mut self, Mark { by, key, request }: Mark, change: ChangeHash) {
        let done = Done { request, change };
        match by {
            By::Key => {
                self.0.entry(key).or_insert(done);
            }
            By::Version => {
                self.0.insert(key, done);
            }
        }
    }

    pub(super) fn get(&self, mark: &Mark) -> Option<Done> {
        self.0.get(&mark.key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{By, Mark};

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        let mark = |by| Mark {
            by,
            key: 7,
            request: u128::MAX,
        };
        for by in [By::Key, By::Version] {
            assert_eq!(Mark::parse(&mark(by).to_string()), Some(mark(by)));
        }
        let text = mark(By::Key).to_string();
        for other in [
            "",
            "idempotency-key:7:8",
            "note",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}0"),
        ] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
        assert_eq!(Mark::parse(&text.replace('7', "+")), None);
    }
}
