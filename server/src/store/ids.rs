//! Stretches of ids, in their order.

use std::ops::Range;

use concord_shared::ids::DocumentId;

/// Behind an id and before all that are longer and begin with it: no id has control characters.
const BEHIND: u8 = 0x01;

/// Above every byte of an id: all are UTF-8.
const ABOVE: u8 = 0xff;

/// Ids from one place in their order, as bytes, up to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Ids {
    /// Every id.
    pub fn all() -> Self {
        Self::beginning_with("")
    }

    /// Those that begin with this.
    pub fn beginning_with(prefix: &str) -> Self {
        let from = prefix.as_bytes().to_vec();
        let mut to = from.clone();
        match to.last_mut() {
            Some(last) => *last = last.saturating_add(1),
            None => to.push(ABOVE),
        }
        Self { from, to }
    }

    /// This one alone.
    pub fn only(id: &str) -> Self {
        let from = id.as_bytes().to_vec();
        let to = [id.as_bytes(), &[BEHIND]].concat();
        Self { from, to }
    }

    /// From the place where one begins up to that where another does.
    pub fn between(from: &[u8], to: &[u8]) -> Self {
        Self {
            from: from.to_vec(),
            to: to.to_vec(),
        }
    }

    /// Those of them that come behind an id.
    #[must_use]
    pub fn behind(self, id: &DocumentId) -> Self {
        let from = self.from.max(Self::only(id.as_str()).to);
        Self { from, ..self }
    }

    /// Whether it can be told without looking that there are none.
    pub fn are_none(&self) -> bool {
        self.from >= self.to
    }

    /// From where, and up to where, as bytes.
    pub fn bounds(&self) -> Range<&[u8]> {
        &self.from..&self.to
    }

    /// Whether an id is one of them.
    pub fn contain(&self, id: &DocumentId) -> bool {
        self.bounds().contains(&id.as_str().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    /// Of some ids in order, those that are among these.
    fn among(ids: &Ids) -> Vec<&'static str> {
        let all = [" ", "a", "a ", "ab", "ab0", "ac", "b", "\u{10ffff}"];
        assert!(all.is_sorted());
        all.into_iter()
            .filter(|text| ids.contain(&id(text)))
            .collect()
    }

    #[test]
    fn ids_lie_between_two_places() {
        assert_eq!(among(&Ids::all()).len(), 8);
        assert_eq!(
            among(&Ids::all().behind(&id("ab"))),
            ["ab0", "ac", "b", "\u{10ffff}"]
        );
        assert_eq!(
            among(&Ids::beginning_with("a")),
            ["a", "a ", "ab", "ab0", "ac"]
        );
        assert_eq!(among(&Ids::beginning_with("ab")), ["ab", "ab0"]);
        assert_eq!(among(&Ids::beginning_with("ab").behind(&id("ab"))), ["ab0"]);
        assert_eq!(
            among(&Ids::beginning_with("ab").behind(&id("a"))),
            ["ab", "ab0"]
        );
        assert_eq!(among(&Ids::beginning_with("\u{10ffff}")), ["\u{10ffff}"]);
        assert_eq!(among(&Ids::only("a")), ["a"]);
        assert_eq!(among(&Ids::between(b"ab", b"b")), ["ab", "ab0", "ac"]);
        let none = Ids::beginning_with("ab").behind(&id("b"));
        assert!(none.are_none() && among(&none).is_empty());
        assert!(Ids::only("a").behind(&id("a")).are_none());
        assert!(!Ids::only("b").behind(&id("a")).are_none());
    }
}
