//! The keys of a document's maps, each once, by number.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

/// Numbers keys in the order in which they first appear.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    texts: Vec<Box<str>>,
    /// Bytes of all of them.
    bytes: usize,
    /// By the hash of the text. Peers choose the keys, so the hash is one that they can't foresee.
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl Keys {
    /// The key's number, if it was seen.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        let found = self.numbers.find(self.hasher.hash_one(key), |number| {
            self.text(*number) == Some(key)
        });
        found.copied()
    }

    /// The key's number; that of a new one is the next.
    pub(super) fn number_or_new(&mut self, key: &str) -> u32 {
        if let Some(number) = self.number(key) {
            return number;
        }
        // An op has one key at most, and there are fewer ops than that.
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(key.into());
        self.bytes += key.len();
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.numbers
            .insert_unique(hasher.hash_one(key), number, |number| {
                hasher.hash_one(texts.get(*number as usize).map_or("", |text| text))
            });
        number
    }

    /// The key with this number.
    pub(super) fn text(&self, number: u32) -> Option<&str> {
        self.texts.get(number as usize).map(|text| &**text)
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.texts.iter().map(|text| &**text)
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn memory(&self) -> usize {
        self.bytes() + self.texts.capacity() * size_of::<Box<str>>() + self.numbers.capacity() * 5
    }
}
